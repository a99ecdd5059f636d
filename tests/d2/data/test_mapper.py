import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode
from PIL import Image

from reviewkd_det.d2.data import CheckedDatasetMapper, find_upright

HEIGHT, WIDTH = 6, 10
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
# What each EXIF orientation asks for, from the EXIF standard.
UPRIGHT = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: PIXELS[::-1].transpose(1, 0, 2),
    7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
    8: PIXELS.transpose(1, 0, 2)[::-1],
}


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.MIN_SIZE_TEST = 0  # as stored
    cfg.INPUT.MIN_SIZE_TRAIN = (HEIGHT,)
    return cfg


def save(path, orientation=1, mode="RGB"):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(PIXELS).convert(mode).save(path, exif=exif, **options)
    return str(path)


def describe(file_name, height=HEIGHT, width=WIDTH, **instance):
    instance = {
        "bbox": [1, 2, 3, 3],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": 0,
        **instance,
    }
    size = {"height": height, "width": width}
    return {"file_name": file_name, "image_id": 1, **size, "annotations": [instance]}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_an_image_is_mapped_upright(cfg, tmp_path, orientation, suffix):
    file_name = save(tmp_path / f"a.{suffix}", orientation)
    expected = UPRIGHT[orientation]
    height, width = expected.shape[:2]
    mapped = CheckedDatasetMapper(cfg, is_train=False)(describe(file_name, height, width))
    assert mapped["file_name"] == file_name
    assert torch.equal(mapped["image"], torch.tensor(expected[:, :, ::-1].copy()).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_every_jpeg_mode_can_be_turned(tmp_path, mode):
    file_name = save(tmp_path / "a.jpg", 6, mode)
    with Image.open(file_name) as stored:
        pixels = np.asarray(stored.convert("RGB"))
    readable_name, size = find_upright(file_name)
    assert size == (HEIGHT, WIDTH)
    assert np.array_equal(read_image(readable_name, "RGB"), pixels[::-1].transpose(1, 0, 2))


def test_a_file_without_orientation_keeps_its_name(tmp_path):
    file_name = save(tmp_path / "a.jpg")
    assert find_upright(file_name) == (file_name, (WIDTH, HEIGHT))


def test_training_keeps_boxes_and_the_given_dictionary(cfg, tmp_path):
    record = describe(save(tmp_path / "a.png"))
    mapped = CheckedDatasetMapper(cfg, is_train=True)(record)
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[1, 2, 4, 5]]
    assert record == describe(str(tmp_path / "a.png"))


def test_an_image_without_objects_is_mapped(cfg, tmp_path):
    record = {**describe(save(tmp_path / "a.png")), "annotations": []}
    assert len(CheckedDatasetMapper(cfg, is_train=True)(record)["instances"]) == 0


def test_a_file_that_is_no_image_is_named(cfg, tmp_path):
    path = tmp_path / "a.png"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"must be readable; got '.*a\.png': Unidentified"):
        CheckedDatasetMapper(cfg, is_train=False)(describe(str(path)))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_named(cfg, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(
        ValueError, match=rf"must be readable; got '.*a\.{suffix}': .*(?i:truncated)"
    ):
        CheckedDatasetMapper(cfg, is_train=False)(describe(str(path), 64, 48))


def test_a_missing_image_is_named(cfg):
    with pytest.raises(ValueError, match=r"must be readable; got 'absent\.png': FileNotFound"):
        CheckedDatasetMapper(cfg, is_train=True)(describe("absent.png"))


def test_another_size_than_annotated_is_refused_with_both(cfg, tmp_path):
    file_name = save(tmp_path / "a.jpg", orientation=6)
    with pytest.raises(ValueError, match=r"'.*a\.jpg' must .* size 10x6; got 6x10 once turned"):
        CheckedDatasetMapper(cfg, is_train=False)(describe(file_name, HEIGHT, WIDTH))


def test_a_missing_mask_is_refused_only_when_masks_are_trained(cfg, tmp_path):
    record = describe(save(tmp_path / "a.png"))
    cfg.MODEL.MASK_ON = True
    CheckedDatasetMapper(cfg, is_train=False)(record)
    with pytest.raises(ValueError, match=r"must have a mask .*; got none at box \[1, 2, 3, 3\]"):
        CheckedDatasetMapper(cfg, is_train=True)(record)
    crowd = describe(record["file_name"], iscrowd=1)
    assert len(CheckedDatasetMapper(cfg, is_train=True)(crowd)["instances"]) == 0


def test_run_length_masks_need_the_bitmask_format(cfg, tmp_path):
    rle = {"size": [HEIGHT, WIDTH], "counts": "0"}
    record = describe(save(tmp_path / "a.png"), segmentation=rle)
    cfg.MODEL.MASK_ON = True
    with pytest.raises(ValueError, match=r"must be 'bitmask' .*; got 'polygon' with one"):
        CheckedDatasetMapper(cfg, is_train=True)(record)


def test_missing_keypoints_are_refused_when_they_are_trained(tmp_path):
    mapper = CheckedDatasetMapper(
        is_train=True, augmentations=[], image_format="RGB", use_keypoint=True
    )
    with pytest.raises(ValueError, match=r"must have keypoints .*; got none at box \[1, 2, 3, 3\]"):
        mapper(describe(save(tmp_path / "a.png")))
