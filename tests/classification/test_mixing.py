"""What is done to training images and labels: mixed, painted over, smoothed."""

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional as F

from classification.build import build_mixing, build_optimizer
from classification.config import get_config, load_config
from classification.data.augment import build_erasing
from classification.data.batches import EpochBatches, Share
from classification.data.device_loader import DeviceLoader
from classification.data.mixing import Mixing
from classification.models import create_model

CLASSES = 5
LABELS = torch.tensor([0, 3, 3, 4])
IMAGES = torch.arange(4, dtype=torch.uint8).mul(60).view(4, 1, 1, 1).expand(4, 3, 6, 8).contiguous()


def parts_of(target):
    """The share of each image's own label; whatever is left belongs to the image before it."""
    own = F.one_hot(LABELS, CLASSES)
    share = target[1, 3]  # of image 1, whose label differs from that of image 0
    torch.testing.assert_close(target, share * own + (1 - share) * own.roll(1, 0))
    return share


def test_mixup_mixes_images_and_labels_in_one_proportion():
    images, target = Mixing(0.8, 0.0, CLASSES, seed=1)(IMAGES, LABELS, 1, 1)
    share = parts_of(target)
    assert 0 < share < 1
    plain = IMAGES.float() / 255
    torch.testing.assert_close(images, share * plain + (1 - share) * plain.roll(1, 0))


def test_cutmix_shares_labels_as_the_area():
    images, target = Mixing(0.0, 1.0, CLASSES, seed=1)(IMAGES, LABELS, 1, 4)
    own = (255 * images).round() == IMAGES
    others = (255 * images).round() == IMAGES.roll(1, 0)
    assert (own | others).all()
    share = own[1].float().mean()
    torch.testing.assert_close(parts_of(target), share)
    assert 0 < share < 1


def test_what_is_mixed_is_a_function_of_the_place_in_the_run():
    mix = Mixing(0.8, 1.0, CLASSES, seed=1)
    before = torch.get_rng_state()
    first = mix(IMAGES, LABELS, 2, 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert all(torch.equal(*pair) for pair in zip(first, mix(IMAGES, LABELS, 2, 7), strict=True))
    elsewhere = [mix(IMAGES, LABELS, 2, 8), mix(IMAGES, LABELS, 3, 7)]
    elsewhere.append(Mixing(0.8, 1.0, CLASSES, 1, Share(1, 2))(IMAGES, LABELS, 2, 7))
    assert not any(torch.equal(first[0], other[0]) for other in elsewhere)
    assert Mixing(0.0, 0.0, CLASSES, 1)(IMAGES, LABELS, 1, 1) == (IMAGES, LABELS)


def test_the_device_loader_paints_the_same_rectangles_wherever_an_epoch_begins():
    erase = build_erasing(1.0, (9, 8, 7))
    images = torch.full((6, 3, 12, 16), 200, dtype=torch.uint8)

    def epoch(batch_size, skip=0):
        batches = EpochBatches(6, batch_size, training=True, seed=3)
        loader = DeviceLoader(images, torch.arange(6), batches, erase=erase)
        loader.set_epoch(2, skip)
        found = {}
        for batch, labels in loader:
            found |= dict(zip(labels.tolist(), batch, strict=True))
        return found

    whole = epoch(2)
    assert len(whole) == 6
    for other in (epoch(3), epoch(2, skip=1)):
        assert all(torch.equal(image, whole[index]) for index, image in other.items())
    painted = [image != 200 for image in whole.values()]
    assert len({tuple(mask.flatten().tolist()) for mask in painted}) == 6
    for image, mask in zip(whole.values(), painted, strict=True):
        assert 0.01 < mask[0].float().mean() < 0.4
        assert image[:, mask[0]].unique(dim=1).flatten().tolist() == [9, 8, 7]


def test_adamw_lets_vectors_not_decay():
    cfg = get_config()
    cfg.SOLVER.OPTIMIZER = "AdamW"
    student = create_model("timm/vit_tiny_patch16_224", num_classes=10, weights="")
    optimizer = build_optimizer(cfg, student, student)
    assert isinstance(optimizer, torch.optim.AdamW)
    decaying, still = (group["params"] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4, 0.0]
    assert len(decaying) + len(still) == len(list(student.parameters()))
    assert all(weight.ndim > 1 for weight in decaying)
    assert {id(student.pos_embed), id(student.cls_token)} <= {id(weight) for weight in still}


def test_an_image_is_not_mixed_with_itself():
    sizes = "SOLVER.BATCH_SIZE must be 10 or more with .* 1 processes x 5 accumulation steps; got 5"
    cfg = get_config()
    cfg.merge_from_list(["INPUT.CUTMIX", 1.0, "SOLVER.ACCUMULATION_STEPS", 5])
    build_mixing(cfg, Accelerator(cpu=True), CLASSES)
    cfg.SOLVER.BATCH_SIZE = 5
    with pytest.raises(ValueError, match=sizes):
        build_mixing(cfg, Accelerator(cpu=True), CLASSES)


def test_a_method_that_needs_one_class_is_refused_with_mixed_labels(tmp_path):
    (tmp_path / "run.yaml").write_text("{}")
    opts = ["DISTILL.METHODS", "('KD', 'DKD')", "TEACHER.NAME", "resnet8", "INPUT.MIXUP", 0.2]
    words = r"INPUT.MIXUP and INPUT.CUTMIX must be 0 with DISTILL.METHODS DKD.*got 0.2 and 0"
    with pytest.raises(ValueError, match=words):
        load_config(tmp_path / "run.yaml", list(map(str, opts)))
