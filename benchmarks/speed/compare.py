"""What distillation costs: a plain step, ours and the textbook's, and their parts."""

from typing import Any

import torch
from detectron2.utils.events import EventStorage

from benchmarks.speed.measure import extra_memory, interleaved
from benchmarks.speed.models import Models, build_models, synthetic_batch
from benchmarks.speed.parts import Step, parts
from benchmarks.speed.settings import TF32, Settings, checked_config, describe
from reviewkd_det.common import keep_freed_memory

__all__ = ["MEMORY", "benchmark"]

MEMORY = {
    "plain_step": "plain_peak_mb",
    "distilled_step": "distilled_peak_mb",
    "textbook_step": "textbook_peak_mb",
    "distillation": "distillation_extra_mb",
    "textbook_distillation": "textbook_distillation_extra_mb",
    "hcl": "hcl_extra_mb",
    "textbook_hcl": "textbook_hcl_extra_mb",
}


def benchmark(settings: Settings) -> dict[str, Any]:
    """Measure a recipe with random weights on synthetic images.

    Seconds are medians over all turns of a part. A step's peak memory is what its models and
    optimiser hold between two steps plus `extra_memory` of a step.

    Returns:
        The seconds of each part by name, `spread` (least and most), the memory in MB, the ratios,
        the losses of ours and of the textbook's, and the settings.
    """
    cfg = checked_config(settings)
    device = torch.device(cfg.MODEL.DEVICE)
    if device.type == "cpu" and settings.memory == "kept":
        keep_freed_memory()
    if settings.precision == TF32:
        torch.set_float32_matmul_precision("high")
    batch = synthetic_batch(settings.size, settings.batch)
    models = build_models(cfg, batch)
    losses = _losses(models, batch)
    calls: dict[str, Any] = parts(models, batch, settings.precision)
    times = interleaved(calls, settings.repeats)
    memory = {}
    for part, name in MEMORY.items():
        calls[part]()  # after which an optimiser has its state
        resident = calls[part].resident_memory if isinstance(calls[part], Step) else 0.0
        memory[name] = resident + extra_memory(calls[part], device)
    steps = {name: call for name, call in calls.items() if isinstance(call, Step)}
    return {
        **{name: seconds.median for name, seconds in times.items()},
        "spread": {name: [min(x.times), max(x.times)] for name, x in times.items()},
        **{
            name.replace("step", "images_per_s"): settings.batch / times[name].median
            for name in steps
        },
        **memory,
        **_derived({name: seconds.median for name, seconds in times.items()}, memory),
        **losses,
        "trained_parameters": {name: step.trained_parameters for name, step in steps.items()},
        "settings": describe(settings, device),
    }


@torch.no_grad()
def _losses(models: Models, batch: list[dict[str, Any]]) -> dict[str, float]:
    """The distillation loss of both on equal weights and images, in full float32."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with EventStorage(start_iter=1):
            ours = float(models.ours(batch)[models.loss])
            textbook = float(models.textbook(batch)["loss_distillation"])
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    return {
        "loss": ours,
        "textbook_loss": textbook,
        "loss_relative_difference": abs(ours - textbook) / abs(textbook),
    }


def _derived(seconds: dict[str, float], memory: dict[str, float]) -> dict[str, float]:
    floor = seconds["plain_step"] + seconds["teacher_backbone"]
    plain = memory["plain_peak_mb"]
    return {
        "floor": floor,
        "distilled_to_floor": seconds["distilled_step"] / floor,
        "distilled_to_textbook": seconds["distilled_step"] / seconds["textbook_step"],
        "extra_memory_ratio": (memory["distilled_peak_mb"] - plain)
        / (memory["textbook_peak_mb"] - plain),
        "hcl_speedup": seconds["textbook_hcl"] / seconds["hcl"],
    }
