"""Stages before training: epochs in which a method trains alone, and the labels do not count."""

from dataclasses import dataclass
from typing import Any

from reviewkd_det.core.levelwise import LevelSettings
from reviewkd_det.core.settings import setting

__all__ = ["StageSettings", "stage_setting"]

PUBLISHED = 30  # epochs of 240, of Tian et al., ICLR 2020


def stage_setting() -> Any:
    """Declare the field `stage_epochs`."""
    meaning = "Epochs at the start in which the method trains alone, of those of the run."
    return setting(PUBLISHED, meaning, least=0)


@dataclass(frozen=True, kw_only=True)
class StageSettings(LevelSettings):
    """Settings of a method that initialises the student's levels."""

    stage_epochs: int = stage_setting()
