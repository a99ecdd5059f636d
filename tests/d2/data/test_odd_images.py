"""Unusual images go through the real mapper, a step of a tiny distilled detector and a test of it,
or are refused by name."""

import json
import warnings

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from PIL import Image

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.data import (
    CheckedDatasetMapper,
    find_upright,
    load_image_folder,
    register_coco_format,
)
from reviewkd_det.d2.data.first_use import inspect_image
from reviewkd_det.d2.runs import from_yaml
from tests.d2 import tiny

HEIGHT, WIDTH = 48, 80
RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
GREY_16 = RNG.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
ALPHAS = bytes(range(256))
SIDEWAYS = Image.Exif()
SIDEWAYS[274] = 6
# Ending, picture, and what it is saved with.
PICTURES = {
    "usual": ("png", RGB, {}),
    "1 x 2000 pixels": ("png", RGB.resize((2000, 1)), {}),
    "2000 x 1 pixels": ("png", RGB.resize((1, 2000)), {}),
    "1 pixel": ("png", RGB.resize((1, 1)), {}),
    "black and white": ("png", RGB.convert("1"), {}),
    "grey": ("png", RGB.convert("L"), {}),
    "grey with alpha": ("png", RGB.convert("LA"), {}),
    "alpha": ("png", RGB.convert("RGBA"), {}),
    "palette": ("gif", RGB.convert("P"), {}),
    "palette with alpha": ("png", RGB.convert("P"), {"transparency": ALPHAS}),
    "palette with a clear colour": ("png", RGB.convert("P"), {"transparency": 3}),
    "16 bits": ("png", Image.fromarray(GREY_16), {}),
    "16 bits in TIFF": ("tif", Image.fromarray(GREY_16), {}),
    "16 bits in 32": ("tif", Image.fromarray(GREY_16.astype(np.int32)), {}),
    "CMYK": ("jpg", RGB.convert("CMYK"), {}),
    "CMYK in TIFF": ("tif", RGB.convert("CMYK"), {}),
    "turned": ("jpg", RGB, {"exif": SIDEWAYS}),
    "16 bits, turned": ("png", Image.fromarray(GREY_16), {"exif": SIDEWAYS}),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd_images")
    tiny.save_teacher(folder)
    tree = {
        # The limit of usual recipes: a side of 1 pixel beside one of 2000 is still 1 pixel.
        "INPUT": {
            "MIN_SIZE_TRAIN": [48],
            "MAX_SIZE_TRAIN": 1333,
            "MIN_SIZE_TEST": 48,
            "MAX_SIZE_TEST": 1333,
        },
        "DATALOADER": {"NUM_WORKERS": 0, "FILTER_EMPTY_ANNOTATIONS": False},
        "SOLVER": {"IMS_PER_BATCH": 2},
    }
    return tiny.save_student(folder, **tree)


@pytest.fixture(scope="module")
def detector(config):
    torch.manual_seed(0)
    return build_model(load_config(config))


@pytest.fixture
def dataset(tmp_path, config):
    """Register one image file with so many objects; gives the config that trains and tests it."""
    name = f"odd_{tmp_path.name}"

    def register(file_name, objects=1):
        with Image.open(tmp_path / file_name) as image:
            width, height = image.size
            if image.getexif().get(274) == 6 and image.format != "TIFF":
                width, height = height, width
        annotations = [
            {
                "id": i + 1,
                "image_id": 1,
                "category_id": i % tiny.CLASSES + 1,
                "bbox": [0, 0, max(1, width / (1 + i % 9)), max(1, height / (1 + i % 7))],
                "area": 1,
                "iscrowd": 0,
            }
            for i in range(objects)
        ]
        image = {"id": 1, "file_name": file_name, "height": height, "width": width}
        classes = [{"id": i + 1, "name": str(i)} for i in range(tiny.CLASSES)]
        content = {"images": [image], "annotations": annotations, "categories": classes}
        (tmp_path / "data.json").write_text(json.dumps(content))
        register_coco_format(name, str(tmp_path / "data.json"), str(tmp_path))
        return load_config(config, ["DATASETS.TRAIN", (name,), "DATASETS.TEST", (name,)])

    yield register
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop(name, None)


def check_step_and_test(cfg, detector):
    """A training step and an evaluation with the loaders of a real run."""
    batch = next(iter(from_yaml.build_train_loader(cfg)))
    detector.train().zero_grad()
    with EventStorage():
        losses = detector(batch)
    assert "loss_reviewkd" in losses
    sum(losses.values()).backward()
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    assert gradients
    assert all(x.isfinite().all() for x in (*losses.values(), *gradients))
    (inputs,) = from_yaml.build_test_loader(cfg, cfg.DATASETS.TEST[0])
    with torch.no_grad():
        (result,) = detector.eval()(inputs)
    found = result["instances"]
    assert found.image_size == (inputs[0]["height"], inputs[0]["width"])
    assert found.pred_boxes.tensor.isfinite().all()


@pytest.mark.parametrize("kind", PICTURES)
def test_an_odd_image_trains_and_is_tested(kind, tmp_path, dataset, detector):
    ending, picture, options = PICTURES[kind]
    picture.save(tmp_path / f"a.{ending}", **options)
    check_step_and_test(dataset(f"a.{ending}"), detector)


def test_the_check_before_a_run_sees_what_the_mapper_sees(tmp_path, config):
    mapper = CheckedDatasetMapper(load_config(config), is_train=False)
    for index, (ending, picture, options) in enumerate(PICTURES.values()):
        path = tmp_path / f"{index}.{ending}"
        picture.save(path, **options)
        for full in (True, False):
            width, height = inspect_image(str(path), full)
            mapper({"file_name": str(path), "width": width, "height": height})  # or it is refused
    for kind in ("no image", "truncated", "float", "negative"):
        path = tmp_path / f"{kind}.{'png' if kind in ('no image', 'truncated') else 'tif'}"
        damage(path, kind)
        with pytest.raises((OSError, ValueError)):
            inspect_image(str(path), True)


@pytest.mark.parametrize("objects", [0, 1, 300])
def test_any_number_of_objects_trains_and_is_tested(objects, tmp_path, dataset, detector):
    RGB.save(tmp_path / "a.png")
    cfg = dataset("a.png", objects)
    (record,) = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    assert len(CheckedDatasetMapper(cfg, is_train=True)(record)["instances"]) == objects
    check_step_and_test(cfg, detector)


@pytest.mark.parametrize("kind", [name for name in PICTURES if name.startswith("16 bits")])
def test_16_bits_are_scaled_and_not_clipped(kind, tmp_path):
    ending, picture, options = PICTURES[kind]
    path = str(tmp_path / f"a.{ending}")
    picture.save(path, **options)
    values = GREY_16.astype(float) / 257  # 65535 / 257 is 255
    if "exif" in options:
        values = np.rot90(values, -1)
    read = read_image(find_upright(path)[0], "BGR")
    assert read.dtype == np.uint8
    assert np.abs(read - values[..., None]).max() <= 0.5


def test_a_palettes_transparency_changes_no_colour_and_brings_no_warning(tmp_path):
    path = str(tmp_path / "a.png")
    RGB.convert("P").save(path, transparency=ALPHAS)
    with Image.open(path) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        colours = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_image(find_upright(path)[0], "RGB"), colours)


def damage(path, kind):
    """Write a file that cannot be used, whose header can be read where the kind allows it."""
    if kind == "no image":
        path.write_text("hello")
        return
    if kind in ("float", "negative"):
        dtype = np.float32 if kind == "float" else np.int32
        Image.fromarray(np.full((HEIGHT, WIDTH), -9, dtype)).save(path)
        return
    RGB.save(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize(
    ("kind", "ending", "words"),
    [
        ("no image", "png", "readable; got '.*a.png': UnidentifiedImageError"),
        ("truncated", "png", "readable; got '.*a.png': OSError"),
        ("truncated", "jpg", "readable; got '.*a.jpg': OSError"),
        ("float", "tif", "usable; got '.*a.tif': ValueError: pixels must be integers; got mode F"),
        ("negative", "tif", "usable; got '.*a.tif': ValueError: grey .* 0 to 65535; got -9 to -9"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(kind, ending, words, is_train, tmp_path, config):
    path = tmp_path / f"a.{ending}"
    damage(path, kind)
    record = {"file_name": str(path), "image_id": 1, "height": HEIGHT, "width": WIDTH}
    mapper = CheckedDatasetMapper(load_config(config), is_train=is_train)
    with pytest.raises(ValueError, match=f"^image file must be {words}"):
        mapper({**record, "annotations": []})


def test_a_strip_that_the_resizing_leaves_nothing_of_is_refused_by_name(tmp_path, config):
    path = tmp_path / "a.png"
    RGB.resize((3000, 1)).save(path)  # at most 1333 pixels wide: less than half a pixel high
    mapper = CheckedDatasetMapper(load_config(config), is_train=False)
    with pytest.raises(ValueError, match=r"must be usable; got '.*a\.png': ValueError: height and"):
        mapper({"file_name": str(path), "image_id": 1, "height": 1, "width": 3000})


def test_a_picture_of_a_folder_that_is_too_large_is_refused_by_name(tmp_path, monkeypatch):
    RGB.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"got 1 of 1 .*a\.png' \(DecompressionBombError"):
        load_image_folder(str(tmp_path))


def test_what_an_augmentation_raises_names_the_file(tmp_path, config, monkeypatch):
    RGB.save(tmp_path / "a.png")
    mapper = CheckedDatasetMapper(load_config(config), is_train=False)

    def fail(_):
        raise TypeError("no picture")

    monkeypatch.setattr(mapper, "augmentations", fail)
    with pytest.raises(ValueError, match=r"usable; got '.*a\.png': TypeError: no picture"):
        mapper({"file_name": str(tmp_path / "a.png"), "image_id": 1})
