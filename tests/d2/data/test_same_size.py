"""Test images in batches: which come together, and that detections stay as they are."""

import pytest
import torch
from detectron2.modeling import build_model

from reviewkd_det.d2.data.checks import check_data
from reviewkd_det.d2.data.same_size import SameSizeBatches
from reviewkd_det.d2.runs import from_yaml
from tests.d2.runs.test_trainer import trainer_for


def image(number, *size):
    return [{"image": torch.zeros(3, *size), "image_id": number}]


@pytest.mark.parametrize(
    ("most", "expected"),
    [(1, [[0], [1], [2], [3], [4]]), (2, [[0, 1], [2], [3], [4]]), (9, [[0, 1, 2], [3], [4]])],
)
def test_images_of_one_size_that_follow_each_other_come_together(most, expected):
    sizes = [(4, 6), (4, 6), (4, 6), (6, 4), (4, 6)]
    loader = [image(number, *size) for number, size in enumerate(sizes)]
    batches = SameSizeBatches(loader, most)
    assert [[x["image_id"] for x in batch] for batch in batches] == expected
    assert len(batches) >= len(expected)


def test_what_is_detected_does_not_depend_on_the_batch(tmp_path):
    cfg = trainer_for(tmp_path)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    images = [
        x | {"image": x["image"][:, :64, :64]}
        for (x,) in from_yaml.build_test_loader(cfg, cfg.DATASETS.TEST[0])
    ]
    assert len({x["image"].shape for x in images}) == 1
    found = {}
    for most in (1, 8):
        batches = list(SameSizeBatches([[x] for x in images], most))
        found[len(batches)] = [x["instances"] for batch in batches for x in model(batch)]
    assert list(found) == [len(images), 1]
    for alone, together in zip(*found.values(), strict=True):
        assert len(alone) > 0
        for name in ("scores", "pred_classes"):
            torch.testing.assert_close(alone.get(name), together.get(name))
        boxes = alone.pred_boxes.tensor, together.pred_boxes.tensor
        torch.testing.assert_close(*boxes, rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("most", [0, -1])
def test_a_batch_of_none_is_refused_before_a_training(tmp_path, most):
    cfg = trainer_for(tmp_path)
    cfg.TEST.IMS_PER_BATCH = most
    with pytest.raises(ValueError, match=f"TEST.IMS_PER_BATCH must be at least 1; got {most}"):
        check_data(cfg, training=True)
