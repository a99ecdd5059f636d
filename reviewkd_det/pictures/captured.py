"""A student's fused levels beside its teacher's, captured while its method computes its loss.

Shapes: a map covers the image with H x W cells of one level.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from reviewkd_det.core.fusion import AttentionFusion, ReviewPath
from reviewkd_det.d2.reading.images import cut_to
from reviewkd_det.d2.reading.taps import Call

__all__ = ["Fusion", "LevelMaps", "Seen", "capture_levels", "recorded"]


class Fusion(Enum):
    """How a level takes in the coarser ones."""

    GATED = "each cell takes as much as its gates say"
    SUM = "the level and the coarser one are taken whole"
    COARSEST = "there is no coarser level"
    NONE = "the level is compared by itself"


class Seen(NamedTuple):
    """One call of a module: its arguments by position, and what it returned."""

    inputs: tuple[Any, ...]
    output: Any


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


@contextmanager
def recorded(*modules: nn.Module) -> Iterator[dict[nn.Module, Seen]]:
    """Record the last call of some modules while the context lasts."""
    seen: dict[nn.Module, Seen] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        seen[module] = Seen(inputs, output)

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(record).remove)
        yield seen


def capture_levels(model: Any, backbone: Seen, image: Tensor) -> list[LevelMaps]:
    """Run the method that fuses levels once, and read what each fusion takes and gives.

    Args:
        model: `DistilledDetector` in eval mode.
        backbone: the student's call of its backbone, on the image alone.
        image: image as the student is given it, (3, h, w).

    Returns:
        The levels, from high to low resolution.
    """
    name: str
    path: Any
    name, path = next(
        (name, x) for name, x in model.methods.named_modules() if isinstance(x, ReviewPath)
    )
    # What calls the path compares its outputs with the teacher's levels.
    caller = model.methods.get_submodule(name.rpartition(".")[0])
    with recorded(caller, path, *path.levels) as seen:
        _run_method(model, name.partition(".")[0], backbone, image)
    levels = []
    for module, output, teacher, loss in zip(
        path.levels, seen[path].output, seen[caller].inputs[1], seen[caller].output, strict=True
    ):
        student, residual, _ = seen[module].inputs
        level = next(key for key, value in backbone.output.items() if value is student)
        stride = model.student.backbone.output_shape()[level].stride
        gates = None if module.gate is None else module.gates(module.reduce(student), residual)
        teacher_map, fused_map, difference = (
            _visible(x.float().square().mean(1).sqrt(), image, stride)
            for x in (teacher, output, output - teacher)
        )
        gate_maps = None if gates is None else _visible(gates, image, stride)
        fusion = _kind(module, is_coarsest=module is path.levels[-1])
        maps = LevelMaps(
            level, stride, teacher_map, fused_map, difference, gate_maps, loss.item(), fusion
        )
        levels.append(maps)
    return levels


def _run_method(model: Any, name: str, backbone: Seen, image: Tensor) -> None:
    """Let a method compute its loss on one image, as in a training step."""
    teacher_levels = model.teacher([image], tuple(backbone.inputs[0].shape[-2:]))
    calls = {"backbone": [Call(*backbone)]}
    with EventStorage():
        model.methods[name](calls, model.teacher, teacher_levels)


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
