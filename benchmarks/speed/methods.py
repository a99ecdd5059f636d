"""What a step with each method costs beside a plain one."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from tabulate import tabulate

from benchmarks.methods import takes_dense_rows
from benchmarks.speed.measure import extra_memory, interleaved
from benchmarks.speed.models import build_distilled, synthetic_batch
from benchmarks.speed.parts import Step, autocast
from benchmarks.speed.settings import Settings, checked_config, choose_device, describe, in_words
from reviewkd_det.common import keep_freed_memory
from reviewkd_det.core import Need, find_method, registered_methods
from reviewkd_det.d2.reading.images import normalize_and_pad, size_for
from reviewkd_det.d2.reading.views import ONE_STAGE_GIVES, TWO_STAGE_GIVES

__all__ = ["costs_table", "measure_methods", "methods_for"]

# Weight of a method: what a step costs does not depend on it, and random weights must not diverge.
NEGLIGIBLE = 1e-9
Row = dict[str, Any]


def methods_for(cfg: CfgNode) -> list[str]:
    """The names of the methods that can teach the student of a recipe."""
    is_dense = "RetinaNet" in cfg.MODEL.DISTILL.STUDENT_META_ARCHITECTURE
    gives = ONE_STAGE_GIVES if is_dense else TWO_STAGE_GIVES
    names = [name for name, x in registered_methods().items() if not x.needs & ~gives]
    if is_dense:
        names = [x for x in names if takes_dense_rows(find_method(x))]
    if not cfg.MODEL.MASK_ON:
        names = [x for x in names if Need.MASKS not in find_method(x).needs]
    return sorted(names, key=str.lower)


def measure_methods(settings: Settings, names: Sequence[str]) -> list[Row]:
    """Measure a step of a recipe with each method alone, with random weights.

    For each method a plain step, the teacher's stock backbone and the distilled step take turns;
    seconds are medians. The memory is the most that the models, the optimiser and a step hold.

    Args:
        settings: how the recipe is measured.
        names: names of methods; () takes all that can teach the student.

    Returns:
        Of each method its name, the step in plain steps and in the floor, which is a plain step and
        the teacher's backbone, the memory in MB beyond the plain step's, and how many parameters
        are trained beside the student.

    Raises:
        ValueError: a method is unknown or cannot teach the student.
    """
    cfg = checked_config(settings)
    known = methods_for(cfg)
    for name in names:
        find_method(name, "--method")
        if name not in known:
            raise ValueError(f"--method must be of {', '.join(known)} for this student; got {name}")
    if cfg.MODEL.DEVICE == "cpu" and settings.memory == "kept":
        keep_freed_memory()
    return [_measure(cfg, settings, name) for name in (names or known)]


def _measure(cfg: CfgNode, settings: Settings, name: str) -> Row:
    cfg = cfg.clone()
    cfg.defrost()
    node = cfg.MODEL.DISTILL[name.upper()]
    cfg.MODEL.DISTILL.METHODS, node.LOSS_WEIGHT, node.WARMUP_ITERS = (name,), NEGLIGIBLE, 0
    batch = synthetic_batch(settings.size, settings.batch)
    built = build_distilled(cfg, batch, with_heads=True)
    model, backbone = built.model, built.teacher.to(cfg.MODEL.DEVICE)
    plain = copy.deepcopy(model.student)
    module, images = model.teacher.module, [x["image"].to(cfg.MODEL.DEVICE) for x in batch]
    size = size_for(backbone, settings.size)
    seen = torch.stack(
        [normalize_and_pad(x, module.pixel_mean, module.pixel_std, size) for x in images]
    )

    @torch.no_grad()
    def teacher() -> None:
        with autocast(seen.device, settings.precision):
            backbone(seen)

    steps = {
        "plain": Step(plain, [plain], [], batch, settings.precision),
        "distilled": Step(
            model, [model.student, model.methods], [module], batch, settings.precision
        ),
    }
    times = interleaved({**steps, "teacher": teacher}, settings.repeats)
    seconds = {part: measured.median for part, measured in times.items()}
    memory = {}
    for part, step in steps.items():
        step()  # after which an optimiser has its state
        memory[part] = step.resident_memory + extra_memory(step, seen.device)
    return {
        "method": name,
        "step / plain": seconds["distilled"] / seconds["plain"],
        "step / floor": seconds["distilled"] / (seconds["plain"] + seconds["teacher"]),
        "memory, MB": memory["distilled"] - memory["plain"],
        "parameters": sum(p.numel() for p in model.methods.parameters()),
    }


def costs_table(rows: Sequence[Row], settings: Settings, *, markdown: bool = False) -> str:
    """The rows of `measure_methods` as a table, and a sentence on what was measured."""
    cells = [
        [
            f"`{row['method']}`" if markdown else row["method"],
            f"{row['step / plain']:.2f}",
            f"{row['step / floor']:.2f}",
            f"{row['memory, MB']:.0f}",
            f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "-",
        ]
        for row in rows
    ]
    headers = ["method", "step / plain", "step / floor", "memory beyond, MB", "own parameters"]
    align = ("left", *["right"] * 4)
    form = "github" if markdown else "simple"
    table = tabulate(cells, headers, form, colalign=align, disable_numparse=True)
    described = describe(settings, torch.device(choose_device(settings)))
    return f"{table}\n\n{in_words(described)}"
