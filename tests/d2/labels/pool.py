"""A tiny teacher that detects, a student, labelled scenes and more images without labels."""

import numpy as np
import torch
from PIL import Image

from reviewkd_det.d2.labels.settings import label_file
from reviewkd_det.d2.runs.yaml_config import load_run_config
from tests.d2 import scenes, tiny

CONFIDENT = {"SCORE_THRESH_TEST": 0.05, "BATCH_SIZE_PER_IMAGE": 8}


def write_images(folder, count=5, seed=1):
    """Images of several sizes, of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        pixels = rng.integers(0, 256, (60 + 4 * index, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def prepare(folder, model=tiny.R_CNN, student_model=None, **labels):
    """The student's config file; its labels are enabled, of score 0.1 and more."""
    name = f"labels_{folder.name}"
    size = {"MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 96}
    tiny.save_teacher(folder, model, INPUT=size)
    pool = write_images(folder / "pool")
    tree = scenes.run_tree(folder, name)
    tree["DATASETS"] |= {
        "IMAGE_FOLDERS": [[f"pool_{name}", str(pool)]],
        "UNLABELED": [f"pool_{name}"],
    }
    asked = {"ENABLED": True, "SCORE": 0.1, **labels}
    student_model = student_model or model
    return tiny.save_student(folder, student_model, {"TEACHER_LABELS": asked}, **tree)


def read(config, *opts):
    """The config, its data registered."""
    return load_run_config(str(config), list(map(str, opts)))


def pool_of(cfg):
    """The name of the images without labels, and the file of their labels."""
    (name,) = cfg.DATASETS.UNLABELED
    return name, label_file(cfg.OUTPUT_DIR, name)


def weights(folder):
    """The teacher's weights, to be changed and put back."""
    return torch.load(folder / "teacher.pth", weights_only=True)
