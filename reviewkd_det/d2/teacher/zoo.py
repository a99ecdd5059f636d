"""Detectron2's model zoo, which a teacher can be named from: its configs and its checkpoints.

The official package holds a config for each name. The most usual ones are in `configs/teachers` as
well, for a Detectron2 that comes without.
"""

from pathlib import Path

import detectron2

from reviewkd_det.common import DETECTORS, recipe_folder
from reviewkd_det.d2.compat import zoo_checkpoint
from reviewkd_det.d2.config import TEACHER_FILE

__all__ = ["find_teacher_config", "trained_checkpoint"]

ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"
SHIPPED = recipe_folder(DETECTORS) / "teachers"


def find_teacher_config(name: str) -> Path:
    """Find the teacher's config file: a path, or a model-zoo name such as
    `COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml`, from Detectron2 or from `configs/teachers`.

    Raises:
        ValueError: no name is given.
        FileNotFoundError: nothing has that name.
    """
    if not name:
        raise ValueError(
            f"{TEACHER_FILE} must name the teacher's config file; got ''; to train without a "
            'teacher set MODEL.DISTILL.METHODS "()"'
        )
    for path in (Path(name), ZOO / name, SHIPPED / name):
        if path.is_file():
            return path
    shipped = sorted(str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*.yaml"))
    raise FileNotFoundError(
        f"{TEACHER_FILE} must name a config file or a model-zoo config; got '{name}'; "
        f"shipped: {', '.join(shipped)}"
    )


def trained_checkpoint(path: Path) -> str:
    """The address of the detector that the zoo trained with one of its configs.

    The zoo's configs name what their training starts from, which is no detector.

    Args:
        path: a config file.

    Returns:
        "" for a file that is not the zoo's, or of which the zoo has no detector.
    """
    if not path.resolve().is_relative_to(ZOO.resolve()):
        return ""
    return zoo_checkpoint(path.resolve().relative_to(ZOO.resolve()).as_posix())
