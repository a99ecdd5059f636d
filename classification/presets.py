"""Published settings of the methods by name, such as `cifar100/CRD`, for DISTILL.PRESET.

Each is what the paper or its code trains the pairs of a data set with, as far as it is published;
the defaults of the methods hold the weights of CIFAR-100. Where a pair has a value of its own it
stands under its teacher and student. ReviewKD's recipes are the files of `classification/configs`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

__all__ = ["PRESETS", "apply_preset", "preset_values"]

KEY = "DISTILL.PRESET"
Values = dict[str, Any]
# These methods mean the maps behind the activation.
AFTER: Values = {"STUDENT_ACTIVATION": "after", "TEACHER_ACTIVATION": "after"}

PRESETS: dict[str, Values] = {
    # As compared by Tian et al., ICLR 2020, with one schedule for all.
    "cifar100/KD": {"CROSS_ENTROPY_WEIGHT": 0.1, "KD.LOSS_WEIGHT": 0.9, "KD.TEMPERATURE": 4.0},
    "cifar100/FitNet": {**AFTER, "FITNET.LOSS_WEIGHT": 100.0},
    "cifar100/AT": {**AFTER, "AT.LOSS_WEIGHT": 1000.0},
    "cifar100/NST": {**AFTER, "NST.LOSS_WEIGHT": 50.0},
    "cifar100/FSP": {**AFTER, "FSP.LOSS_WEIGHT": 50.0, "FSP.STAGE_SHARE": 0.125},
    "cifar100/AB": {"AB.LOSS_WEIGHT": 0.003, "AB.STAGE_SHARE": 0.125},
    "cifar100/FT": {**AFTER, "FT.LOSS_WEIGHT": 200.0, "FT.STAGE_SHARE": 0.125},
    "cifar100/VID": {**AFTER, "VID.LOSS_WEIGHT": 1.0},
    "cifar100/SP": {**AFTER, "SP.LOSS_WEIGHT": 3000.0},
    "cifar100/RKD": {"RKD.LOSS_WEIGHT": 1.0, "RKD.DISTANCE": 25.0, "RKD.ANGLE": 50.0},
    "cifar100/PKT": {"PKT.LOSS_WEIGHT": 30000.0},
    "cifar100/CRD": {"CRD.LOSS_WEIGHT": 0.8},
    # Heo et al., ICCV 2019.
    "cifar100/OFD": {"OFD.LOSS_WEIGHT": 1e-3},
    "imagenet/OFD": {"OFD.LOSS_WEIGHT": 1e-4},
    # Zhao et al., CVPR 2022.
    "cifar100/DKD": {
        "DKD.ALPHA": 1.0, "DKD.BETA": 8.0, "DKD.TEMPERATURE": 4.0, "DKD.WARMUP_EPOCHS": 20.0,
    },
    "imagenet/DKD": {"DKD.ALPHA": 1.0, "DKD.TEMPERATURE": 1.0, "DKD.WARMUP_EPOCHS": 1.0},
    "imagenet/KD": {"CROSS_ENTROPY_WEIGHT": 0.5, "KD.LOSS_WEIGHT": 0.5, "KD.TEMPERATURE": 1.0},
    # Huang et al., NeurIPS 2022.
    "cifar100/DIST": {"DIST.LOSS_WEIGHT": 2.0, "DIST.TEMPERATURE": 4.0},
    "imagenet/DIST": {"DIST.LOSS_WEIGHT": 2.0, "DIST.TEMPERATURE": 1.0},
    # Sun et al., CVPR 2024; the weight is ten times KD's own.
    "cifar100/KD-standardized": {
        "CROSS_ENTROPY_WEIGHT": 0.1, "KD.LOSS_WEIGHT": 9.0, "KD.TEMPERATURE": 2.0,
        "KD.STANDARDIZE": True,
    },
    # Chen et al., CVPR 2022.
    "cifar100/SimKD": {"SIMKD.LOSS_WEIGHT": 1.0, "SIMKD.REDUCTION": 2},
}  # fmt: skip
# By preset, teacher and student.
OF_PAIRS: dict[tuple[str, str, str], Values] = {
    ("cifar100/DKD", "vgg13", "vgg8"): {"DKD.BETA": 6.0},
    ("cifar100/DKD", "wrn_40_2", "wrn_16_2"): {"DKD.BETA": 6.0},
    ("cifar100/DKD", "wrn_40_2", "wrn_40_1"): {"DKD.BETA": 6.0},
    ("cifar100/DKD", "resnet56", "resnet20"): {"DKD.BETA": 2.0},
    ("cifar100/DKD", "resnet110", "resnet32"): {"DKD.BETA": 2.0},
    ("imagenet/DKD", "resnet34", "resnet18"): {"DKD.BETA": 0.5},
    ("imagenet/DKD", "resnet50", "mobilenetv1_100"): {"DKD.BETA": 2.0},
}


def preset_values(name: str, teacher: str, student: str) -> Values:
    """The keys and values of a preset for a pair of networks.

    Args:
        name: name of the preset.
        teacher: the teacher's name, as TEACHER.NAME has it.
        student: the student's name, as MODEL.NAME has it.

    Raises:
        ValueError: no preset has that name.
    """
    if name not in PRESETS:
        raise ValueError(f"{KEY} must be of {', '.join(PRESETS)}; got {name!r}")
    method = name.partition("/")[2].partition("-")[0]
    pair = name, teacher.rpartition("/")[2], student.rpartition("/")[2]
    values = {**PRESETS[name], **OF_PAIRS.get(pair, {})}
    return {
        "DISTILL.METHODS": (method,), **{f"DISTILL.{key}": x for key, x in values.items()}
    }  # fmt: skip


def apply_preset(
    cfg: CfgNode, files: Sequence[tuple[Path, Mapping[str, Any]]], opts: Sequence[Any]
) -> None:
    """Set what the preset of a config says, but for keys that are given where it is or later.

    Args:
        cfg: the merged config, changed in place.
        files: its files with their contents, a base before what names it.
        opts: the KEY VALUE pairs of the command line.

    Raises:
        ValueError: no preset has that name.
    """
    if not cfg.DISTILL.PRESET:
        return
    given = {str(key) for key in opts[::2]}
    if KEY not in given:
        naming = max(i for i, (_, content) in enumerate(files) if KEY in set(_keys(content)))
        for _, content in files[naming:]:
            given |= set(_keys(content))
    values = preset_values(cfg.DISTILL.PRESET, cfg.TEACHER.NAME, cfg.MODEL.NAME)
    cfg.merge_from_list([x for pair in values.items() if pair[0] not in given for x in pair])


def _keys(content: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of a file's content."""
    keys = []
    for key, value in content.items():
        keys += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return keys
