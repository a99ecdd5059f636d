"""A student's fused levels beside its teacher's, captured while its method computes its loss.

Shapes: a map covers the image with H x W cells of one level.
"""

from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from reviewkd_det.core.fusion import AttentionFusion, ReviewPath
from reviewkd_det.d2.reading.images import cut_to
from reviewkd_det.d2.reading.taps import only_call, tapped
from reviewkd_det.d2.reading.unlabeled import BackboneCall
from reviewkd_det.d2.reading.views import read_levels

__all__ = ["Fusion", "LevelMaps", "capture_levels"]


class Fusion(Enum):
    """How a level takes in the coarser ones."""

    GATED = "each cell takes as much as its gates say"
    SUM = "the level and the coarser one are taken whole"
    COARSEST = "there is no coarser level"
    NONE = "the level is compared by itself"


class LevelMaps(NamedTuple):
    """One level of the teacher beside the student's, on one image.

    The maps of `teacher`, `fused` and `difference`, (H, W), are root mean squares over channels.
    `gates` is (2, H, W), of the student's own level and of the coarser one; None without gates.
    `loss` is the hierarchical context loss, without its weight.
    """

    name: str
    stride: int
    teacher: np.ndarray
    fused: np.ndarray
    difference: np.ndarray
    gates: np.ndarray | None
    loss: float
    fusion: Fusion


def capture_levels(model: Any, backbone: BackboneCall, image: Tensor) -> list[LevelMaps]:
    """Run the method that fuses levels once, and read what each fusion takes and gives.

    Args:
        model: `DistilledDetector` in eval mode.
        backbone: the student's only call of its backbone, on the image alone.
        image: image as the student is given it, (3, h, w).

    Returns:
        The levels, from high to low resolution.
    """
    path_name, path = next(
        (name, x) for name, x in model.methods.named_modules() if isinstance(x, ReviewPath)
    )
    fusions = [f"{path_name}.levels.{i}" for i in range(len(path.levels))]
    caller = path_name.rpartition(".")[0]  # compares the path's outputs with the teacher's levels
    with tapped(model.methods, [caller, path_name, *fusions]) as seen:
        _run_method(model, path_name.partition(".")[0], backbone, image)
    compared = only_call(seen, caller)
    levels = []
    for name, output, teacher, loss in zip(
        fusions,
        only_call(seen, path_name).output,
        compared.inputs["teacher_levels"],
        compared.output,
        strict=True,
    ):
        inputs = only_call(seen, name).inputs
        student, residual = inputs["student"], inputs.get("residual")
        module = model.methods.get_submodule(name)
        level = next(key for key, value in backbone.levels.items() if value is student)
        stride = model.student.backbone.output_shape()[level].stride
        gates = None if module.gate is None else module.gates(module.reduce(student), residual)
        teacher_map, fused_map, difference = (
            _visible(x.float().square().mean(1).sqrt(), image, stride)
            for x in (teacher, output, output - teacher)
        )
        gate_maps = None if gates is None else _visible(gates, image, stride)
        fusion = _kind(module, is_coarsest=name == fusions[-1])
        maps = LevelMaps(
            level, stride, teacher_map, fused_map, difference, gate_maps, loss.item(), fusion
        )
        levels.append(maps)
    return levels


def _run_method(model: Any, name: str, backbone: BackboneCall, image: Tensor) -> None:
    """Let a method compute its loss on one image, as in a training step."""
    teacher_levels = model.teacher([image], backbone.size)
    model.methods[name](*read_levels(model.levels, backbone, teacher_levels))


def _kind(fusion: nn.Module, *, is_coarsest: bool) -> Fusion:
    assert isinstance(fusion, AttentionFusion)
    if fusion.gate is not None:
        return Fusion.GATED
    if fusion.has_residual:
        return Fusion.SUM
    return Fusion.COARSEST if is_coarsest else Fusion.NONE


def _visible(maps: Tensor, image: Tensor, stride: int) -> np.ndarray:
    """The first image's cells that are not padding alone."""
    return cut_to(maps[0], image.shape[-2:], stride).cpu().numpy()
