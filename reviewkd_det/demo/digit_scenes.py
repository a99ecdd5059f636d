"""The demo data set: scenes of real handwritten digits, made on first use and kept.

Below `<root>/digit_scenes`: `images/<split>/<number>.png` and `annotations/<file>.json` in COCO's
format. The digits are scikit-learn's 1,797 handwritten ones; no source digit is in two splits.
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from time import perf_counter

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from reviewkd_det.d2.data.coco_format import load_coco_format
from reviewkd_det.demo.digit_drawing import SCENE_SIDE_PX, bounds, draw_scene, outline

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "dev")  # their positions seed their scenes
SCENE_COUNTS = {"train": 1500, "val": 300, "dev": 300}
SOURCE_COUNTS = {"train": 1197, "val": 300, "dev": 300}  # digits of the 1,797
CLASSES = tuple("0123456789")
FIRST_SCENES = 150  # of the small training set
# Data set name: (annotation file, split of its images). Choose settings on dev, report val.
DATASETS = {
    "digit_scenes_train": ("train", "train"),
    f"digit_scenes_train_{FIRST_SCENES}": (f"train_{FIRST_SCENES}", "train"),
    "digit_scenes_train_rest": ("train_rest", "train"),
    "digit_scenes_val": ("val", "val"),
    "digit_scenes_dev": ("dev", "dev"),
}


def register_digit_scenes(root: str) -> None:
    """Register the names of `DATASETS` below a folder; loading one makes the files if absent."""
    folder = os.path.join(root, "digit_scenes")
    for name, (file_name, split) in DATASETS.items():
        json_file = os.path.join(folder, "annotations", f"{file_name}.json")
        image_root = os.path.join(folder, "images", split)
        DatasetCatalog[name] = partial(_load, folder, json_file, image_root, name)
        MetadataCatalog.pop(name, None)  # or its old paths would refuse the new ones
        MetadataCatalog.get(name).set(
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
            thing_classes=list(CLASSES),
        )


def write_digit_scenes(
    folder: str, scene_counts: Mapping[str, int] = SCENE_COUNTS, seed: int = 0
) -> None:
    """Make the scenes of every split and put them at `folder` in one step.

    The files are written to a temporary folder beside it, which is then renamed: nobody sees half a
    data set, and of two processes that write it at once, the first to finish wins. The same seed
    gives the same scenes, whatever the counts.

    Args:
        folder: Folder of the data set; its parent is made if absent.
        scene_counts: Number of scenes of each split.
        seed: Seed of the division into splits and of every scene.

    Raises:
        ModuleNotFoundError: If scikit-learn is not installed.
    """
    start = perf_counter()
    sources = _divide_digits(seed)
    parent = os.path.dirname(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".digit_scenes_", dir=parent) as temporary:
        unfinished = os.path.join(temporary, "digit_scenes")
        os.makedirs(os.path.join(unfinished, "annotations"))
        for index, split in enumerate(SPLITS):
            _write_split(unfinished, split, scene_counts[split], sources[split], (seed, index))
        try:
            os.rename(unfinished, folder)
        except OSError:
            if not os.path.isdir(folder):  # otherwise another process was faster
                raise
    total, seconds = sum(scene_counts.values()), perf_counter() - start
    logger.info("%s: made %d digit scenes in %.1f s", folder, total, seconds)


def _load(folder: str, json_file: str, image_root: str, name: str) -> list[dict]:
    if not os.path.isdir(folder):
        write_digit_scenes(folder)
    return load_coco_format(json_file, image_root, name)


def _divide_digits(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ModuleNotFoundError(
            "digit scenes must be made from the digits of scikit-learn; got no scikit-learn; "
            'pip install "reviewkd_det[demo]"'
        ) from error
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    ends = np.cumsum([SOURCE_COUNTS[split] for split in SPLITS])
    return {
        split: (digits.images[part] / 16, digits.target[part])  # ink is 0 to 16
        for split, part in zip(SPLITS, np.split(order, ends[:-1]), strict=True)
    }


def _write_split(
    folder: str,
    split: str,
    scene_count: int,
    source: tuple[np.ndarray, np.ndarray],
    seeds: tuple[int, int],
) -> None:
    images_folder = os.path.join(folder, "images", split)
    os.makedirs(images_folder)
    images: list[dict] = []
    annotations: list[dict] = []
    size = {"height": SCENE_SIDE_PX, "width": SCENE_SIDE_PX}
    for number in range(1, scene_count + 1):
        picture, digits = draw_scene(np.random.default_rng([*seeds, number]), *source)
        file_name = f"{number:06d}.png"
        Image.fromarray(picture).save(os.path.join(images_folder, file_name), compress_level=1)
        images.append({"id": number, "file_name": file_name, **size})
        for digit in digits:
            object_id = len(annotations) + 1
            annotations.append(_annotate(object_id, number, digit.label, digit.mask))
    _write_json(folder, split, images, annotations)
    if split == "train":
        few = [annotation for annotation in annotations if annotation["image_id"] <= FIRST_SCENES]
        _write_json(folder, f"train_{FIRST_SCENES}", images[:FIRST_SCENES], few)
        _write_json(folder, "train_rest", images[FIRST_SCENES:], annotations[len(few) :])


def _annotate(object_id: int, image_id: int, label: int, mask: np.ndarray) -> dict:
    return {
        "id": object_id,
        "image_id": image_id,
        "category_id": label + 1,  # COCO counts categories from 1
        "bbox": bounds(mask),
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": outline(mask),
    }


def _write_json(folder: str, name: str, images: list[dict], annotations: list[dict]) -> None:
    content = {
        "info": {"description": "Scenes of handwritten digits, made by reviewkd_det"},
        "licenses": [],
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)],
        "images": images,
        "annotations": annotations,
    }
    path = os.path.join(folder, "annotations", f"{name}.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(content))  # dump would encode in Python, four times slower


register_digit_scenes(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
