"""Stages before training: a part in which a method acts alone, and the labels do not count."""

from dataclasses import dataclass
from typing import Any

from reviewkd_det.core.levelwise import LevelSettings
from reviewkd_det.core.settings import setting

__all__ = ["StageSettings", "stage_setting"]

PUBLISHED = 30 / 240  # of Tian et al., ICLR 2020


def stage_setting() -> Any:
    """Declare the field `stage_share`."""
    meaning = "Part of the training, at its start, in which the method acts alone, below 1."
    return setting(PUBLISHED, meaning, least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class StageSettings(LevelSettings):
    """Settings of a method that initialises the student's levels."""

    stage_share: float = stage_setting()
