"""A COCO-format data set of a few small images, written by a test."""

import json

import numpy as np
from PIL import Image

SIZES = [(64, 96), (80, 64), (64, 64), (72, 90)]  # (height, width)


def write_scenes(folder, classes=3):
    """Write 4 images with 2 boxes and masks each; returns the JSON file and the image folder."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for index, (height, width) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        name = f"{index}.png"
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for x, y, w, h in [(4, 6, 30, 34), (30, 20, 24, 30)]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": len(annotations) % classes + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(classes)],
    }
    json_file = folder / "scenes.json"
    json_file.write_text(json.dumps(content))
    return json_file, folder / "images"


def run_tree(folder, name, **solver):
    """The part of a config tree that trains and evaluates on these scenes for 2 iterations."""
    json_file, image_root = write_scenes(folder)
    size = {"MIN_SIZE_TRAIN": [64], "MAX_SIZE_TRAIN": 96, "MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 96}
    return {
        "DATASETS": {
            "COCO_FORMAT": [[name, str(json_file), str(image_root)]],
            "TRAIN": [name],
            "TEST": [name],
        },
        "INPUT": size,
        "DATALOADER": {"NUM_WORKERS": 0},
        "SOLVER": {"IMS_PER_BATCH": 2, "MAX_ITER": 2, "BASE_LR": 0.001, **solver},
        "SEED": 4,
        "OUTPUT_DIR": str(folder / "run"),
    }
