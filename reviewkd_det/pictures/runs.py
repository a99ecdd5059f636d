"""Trained runs, and what one of them sees in an image, (h, w, 3)."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.structures import Instances

from reviewkd_det.core import ReviewPath
from reviewkd_det.d2.data import CheckedDatasetMapper
from reviewkd_det.d2.reading.unlabeled import joined_backbone
from reviewkd_det.d2.registered import build_model
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer, last_checkpoint
from reviewkd_det.d2.runs.yaml_config import load_run_config
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from reviewkd_det.pictures.captured import LevelMaps, capture_levels
from reviewkd_det.pictures.scenes import Scene

__all__ = ["Findings", "LoadedRun", "load_run", "look"]


class LoadedRun(NamedTuple):
    """A trained detector in eval mode; with fused levels, a `DistilledDetector` and its teacher."""

    name: str
    cfg: CfgNode
    model: Any
    with_levels: bool


class Findings(NamedTuple):
    """What a run sees: its input image, its detections and, where it fuses levels, those."""

    image: np.ndarray
    found: Instances
    levels: list[LevelMaps]


def load_run(name: str, folder: Path) -> LoadedRun:
    """Load a run's last checkpoint: the student and, where it fuses levels, all that resuming does.

    Args:
        name: name of the run in the pictures.
        folder: output folder of its training.

    Raises:
        FileNotFoundError: the folder has no config or checkpoint, or the teacher's are gone.
        ValueError: the checkpoint is not that of the config.
    """
    cfg = load_run_config(str(folder / "config.yaml"), [], any_device=True)
    settings = cfg.MODEL.DISTILL
    is_distilled = cfg.MODEL.META_ARCHITECTURE == "DistilledDetector"
    # Without its teacher a method can be known by its settings alone.
    with_levels = is_distilled and any(
        "FUSION" in settings.get(name.upper(), {}) for name in settings.METHODS
    )
    if not with_levels:
        settings.METHODS = ()
    model = build_model(cfg).eval()
    with_levels = any(isinstance(module, ReviewPath) for module in model.modules())
    checkpoint = last_checkpoint(folder)
    if not checkpoint:
        raise FileNotFoundError(f"--run must name a folder with a checkpoint; got '{folder}'")
    if with_levels:
        checkpointer = StudentCheckpointer(model, str(folder), key="--run", methods=model.methods)
        checkpointer.resume_or_load("", resume=True)
    else:
        VerifiedCheckpointer(model, key="--run").load(checkpoint)
    return LoadedRun(name, cfg, model, with_levels)


@torch.no_grad()
def look(run: LoadedRun, scene: Scene) -> Findings:
    """Let a run detect what is in an image, as it is evaluated."""
    height, width = scene.image.shape[:2]
    mapper = CheckedDatasetMapper(run.cfg, is_train=False)
    mapped = mapper({"file_name": scene.file_name, "height": height, "width": width})
    student = getattr(run.model, "student", run.model)
    with joined_backbone(student) as calls:
        (output,) = run.model([mapped])
    image = convert_image_to_rgb(mapped["image"].permute(1, 2, 0), run.cfg.INPUT.FORMAT)
    levels = capture_levels(run.model, calls[0], mapped["image"]) if run.with_levels else []
    return Findings(image, output["instances"].to("cpu"), levels)
