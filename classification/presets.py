"""Published settings of the methods by name, such as `cifar100/CRD`, for DISTILL.PRESET."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from reviewkd_det.common.config.nested import flat

__all__ = ["apply_preset", "preset_names", "preset_values"]

KEY = "DISTILL.PRESET"
FILE = Path(__file__).with_name("presets.yaml")


@cache
def _presets() -> dict[str, dict[str, Any]]:
    presets: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return presets


def preset_names() -> list[str]:
    """The names of the presets."""
    return list(_presets())


def preset_values(name: str, teacher: str, student: str) -> dict[str, Any]:
    """The keys and values of a preset for a pair of networks.

    Args:
        name: name of the preset.
        teacher: the teacher's name, as TEACHER.NAME has it.
        student: the student's name, as MODEL.NAME has it.

    Raises:
        ValueError: no preset has that name.
    """
    if name not in _presets():
        raise ValueError(f"{KEY} must be of {', '.join(preset_names())}; got {name!r}")
    preset = dict(_presets()[name])
    values: dict[str, Any] = {}
    for own in [{}, *preset.pop("pairs", [])]:
        networks = [(own.get("teacher"), teacher), (own.get("student"), student)]
        if all(mine in (None, given.rpartition("/")[2]) for mine, given in networks):
            parts = {k: x for k, x in (own or preset).items() if k not in ("teacher", "student")}
            values |= {f"DISTILL.{key}": x for key, x in flat(parts).items()}
    method = name.partition("/")[2].partition("-")[0]
    return {"DISTILL.METHODS": (method,), **values}


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
        naming = max(i for i, (_, content) in enumerate(files) if KEY in set(flat(content)))
        for _, content in files[naming:]:
            given |= set(flat(content))
    values = preset_values(cfg.DISTILL.PRESET, cfg.TEACHER.NAME, cfg.MODEL.NAME)
    cfg.merge_from_list([x for pair in values.items() if pair[0] not in given for x in pair])
