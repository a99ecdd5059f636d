"""Trained runs, and what one of them sees in an image.

Shapes: an image is (h, w, 3); a map covers it with H x W cells of one level.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from reviewkd_det.d2.data import CheckedDatasetMapper
from reviewkd_det.d2.reading.images import cut_to
from reviewkd_det.d2.reading.taps import Call, only_call, tapped
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer, last_checkpoint
from reviewkd_det.d2.runs.start import load_run_config
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from reviewkd_det.pictures.scenes import Scene

__all__ = ["LevelMaps", "Run", "View", "load_run", "look"]


class Run(NamedTuple):
    """A trained detector in eval mode; with ReviewKD, a `DistilledDetector` and its teacher."""

    name: str
    cfg: CfgNode
    model: Any
    with_levels: bool


class LevelMaps(NamedTuple):
    """One level of the teacher beside the student's, on one image.

    The maps of `teacher`, `fused` and `difference`, (H, W), are root mean squares over channels.
    `gates` is (2, H, W), of the student's own level and of the coarser one; None at the coarsest.
    `loss` is the hierarchical context loss, without its weight.
    """

    name: str
    stride: int
    teacher: np.ndarray
    fused: np.ndarray
    difference: np.ndarray
    gates: np.ndarray | None
    loss: float


class View(NamedTuple):
    """What a run sees: its input image, its detections and, if it has ReviewKD, its levels."""

    image: np.ndarray
    found: Instances
    levels: list[LevelMaps]


def load_run(name: str, folder: Path) -> Run:
    """Load a run's last checkpoint: the student and, where it has ReviewKD, all that resuming does.

    Args:
        name: what to call it.
        folder: the output folder of its training.

    Raises:
        FileNotFoundError: the folder has no config or checkpoint, or the teacher's are gone.
        ValueError: the checkpoint is not that of the config.
    """
    cfg = load_run_config(str(folder / "config.yaml"), [])
    settings = cfg.MODEL.DISTILL
    is_distilled = cfg.MODEL.META_ARCHITECTURE == "DistilledDetector"
    with_levels = is_distilled and "ReviewKD" in settings.METHODS
    if not with_levels:
        settings.METHODS = ()
    model = build_model(cfg).eval()
    checkpoint = last_checkpoint(folder)
    if not checkpoint:
        raise FileNotFoundError(f"--run must name a folder with a checkpoint; got '{folder}'")
    if with_levels:
        checkpointer = StudentCheckpointer(model, str(folder), key="--run", methods=model.methods)
        checkpointer.resume_or_load("", resume=True)
    else:
        VerifiedCheckpointer(model, key="--run").load(checkpoint)
    return Run(name, cfg, model, with_levels)


@torch.no_grad()
def look(run: Run, scene: Scene) -> View:
    """Let a run detect what is in an image, as it is evaluated."""
    height, width = scene.image.shape[:2]
    mapper = CheckedDatasetMapper(run.cfg, is_train=False)
    mapped = mapper({"file_name": scene.file_name, "height": height, "width": width})
    student = getattr(run.model, "student", run.model)
    with tapped(student, ["backbone"] if run.with_levels else []) as calls:
        (output,) = run.model([mapped])
    image = convert_image_to_rgb(mapped["image"].permute(1, 2, 0), run.cfg.INPUT.FORMAT)
    levels = _levels(run.model, calls, mapped["image"]) if run.with_levels else []
    return View(image, output["instances"].to("cpu"), levels)


def _levels(model: Any, calls: Mapping[str, list[Call]], image: Tensor) -> list[LevelMaps]:
    method = model.methods["ReviewKD"]
    fusions = [f"distiller.path.levels.{i}" for i in range(len(method.in_features))]
    padded_size = tuple(only_call(calls, "backbone").inputs[0].shape[-2:])
    teacher_levels = model.teacher([image], padded_size)
    with EventStorage(), tapped(method, ["distiller", "distiller.path", *fusions]) as seen:
        method(calls, model.teacher, teacher_levels)
    compared = only_call(seen, "distiller")
    shapes = model.student.backbone.output_shape()
    levels = []
    for name, fusion, fused, teacher, loss in zip(
        method.in_features,
        fusions,
        only_call(seen, "distiller.path").output,
        compared.inputs[1],
        compared.output,
        strict=True,
    ):
        stride = shapes[name].stride
        student, residual, _ = only_call(seen, fusion).inputs
        module = method.get_submodule(fusion)
        gates = None if module.gate is None else module.gates(module.reduce(student), residual)
        teacher_map, fused_map, difference = (
            _visible(x.float().square().mean(1).sqrt(), image, stride)
            for x in (teacher, fused, fused - teacher)
        )
        gate_maps = None if gates is None else _visible(gates, image, stride)
        levels.append(
            LevelMaps(name, stride, teacher_map, fused_map, difference, gate_maps, loss.item())
        )
    return levels


def _visible(maps: Tensor, image: Tensor, stride: int) -> np.ndarray:
    """The first image's cells that are not padding alone."""
    return cut_to(maps[0], image.shape[-2:], stride).cpu().numpy()
