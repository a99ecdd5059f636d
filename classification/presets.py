"""Published settings of the methods by name, such as `cifar100/CRD`, for DISTILL.PRESET."""

from functools import cache
from pathlib import Path

from fvcore.common.config import CfgNode

from reviewkd_det.common.config.presets import Presets

__all__ = ["pair_of", "presets"]


@cache
def presets() -> Presets:
    """The presets of classifiers."""
    return Presets(Path(__file__).with_name("presets.yaml"), "DISTILL")


def pair_of(cfg: CfgNode) -> dict[str, str]:
    """The names of teacher and student, without their library's."""
    names = {"teacher": cfg.TEACHER.NAME, "student": cfg.MODEL.NAME}
    return {role: name.rpartition("/")[2] for role, name in names.items()}
