"""The demo data set: scenes of real handwritten digits, made on first use and kept.

Below `<root>/digit_scenes`: `images/<split>/<number>.png` and `annotations/<file>.json` in COCO's
format. The digits are scikit-learn's 1,797 handwritten ones. No source digit is in two of the
splits train, val and dev; unlabeled shows those of train in scenes of its own, as more images of
the same place would. Its labels are there to find out what true labels would give.
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

SPLITS = ("train", "val", "dev", "unlabeled")  # their positions seed their scenes
SCENE_COUNTS = {"train": 1500, "val": 300, "dev": 300, "unlabeled": 3000}
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
    "digit_scenes_unlabeled": ("unlabeled", "unlabeled"),
}


def register_digit_scenes(root: str) -> None:
    """Register the names of `DATASETS` below a folder; loading one makes the files if absent."""
    folder = os.path.join(root, "digit_scenes")
    for name, (file_name, split) in DATASETS.items():
        json_file = os.path.join(folder, "annotations", f"{file_name}.json")
        image_root = os.path.join(folder, "images", split)
        DatasetCatalog[name] = partial(_load, folder, split, json_file, image_root, name)
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
    """Make the scenes of every split that a folder lacks.

    A split is written to a temporary folder, whose parts are then renamed, the list of its images
    last: nobody sees half a split, and of two processes that write it at once, the first to finish
    wins. The same seed gives the same scenes, whatever the counts and the other splits.

    Args:
        folder: folder of the data set, made if absent.
        scene_counts: number of scenes of each split to write.
        seed: seed of the division into splits and of every scene.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    missing = [split for split in scene_counts if not os.path.isfile(_json_file(folder, split))]
    if not missing:
        return
    start = perf_counter()
    sources = _divide_digits(seed)
    for part in ("annotations", "images"):
        os.makedirs(os.path.join(folder, part), exist_ok=True)
    for split in missing:
        with tempfile.TemporaryDirectory(prefix=".unfinished_", dir=folder) as unfinished:
            os.makedirs(os.path.join(unfinished, "annotations"))
            seeds = (seed, SPLITS.index(split))
            _write_split(unfinished, split, scene_counts[split], sources[split], seeds)
            _put_in_place(unfinished, folder, split)
    total, seconds = sum(scene_counts[split] for split in missing), perf_counter() - start
    logger.info("%s: made %d digit scenes in %.1f s", folder, total, seconds)


def _json_file(folder: str, name: str) -> str:
    return os.path.join(folder, "annotations", f"{name}.json")


def _put_in_place(unfinished: str, folder: str, split: str) -> None:
    images = os.path.join(folder, "images", split)
    try:
        os.rename(os.path.join(unfinished, "images", split), images)
    except OSError:
        if not os.path.isdir(images):  # otherwise another process was faster
            raise
    names = os.listdir(os.path.join(unfinished, "annotations"))
    for name in sorted(names, key=lambda name: name == f"{split}.json"):  # says that all is there
        os.replace(*(os.path.join(root, "annotations", name) for root in (unfinished, folder)))


def _load(folder: str, split: str, json_file: str, image_root: str, name: str) -> list[dict]:
    write_digit_scenes(folder, {split: SCENE_COUNTS[split]})
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
    ends = np.cumsum(list(SOURCE_COUNTS.values()))
    sources = {
        split: (digits.images[part] / 16, digits.target[part])  # ink is 0 to 16
        for split, part in zip(SOURCE_COUNTS, np.split(order, ends[:-1]), strict=True)
    }
    return sources | {"unlabeled": sources["train"]}


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
    with open(_json_file(folder, name), "w", encoding="utf-8") as file:
        file.write(json.dumps(content))  # dump would encode in Python, four times slower


register_digit_scenes(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
