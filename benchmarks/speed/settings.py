"""How a recipe is measured, checked before anything is built."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode

from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.teacher.backbone import PRECISIONS

__all__ = [
    "TF32",
    "Settings",
    "checked_config",
    "choose_device",
    "describe",
    "device_name",
    "in_words",
]

TF32 = "tf32"
LEAST_SIDE = 32  # pixels: one cell of the deepest stage


class Settings(NamedTuple):
    """How a recipe is measured.

    Args:
        config_file: the recipe.
        opts: KEY VALUE pairs over it.
        size: (H, W) of the images.
        batch: images in a step.
        repeats: calls of each part that count.
        precision: float32, float16, bfloat16, or tf32: float32 whose matrix products a GPU rounds.
        device: cpu, cuda, or auto: a GPU where there is one.
        memory: use of freed memory on a CPU: kept for the next step, as in a training run, or
            stock, given back and faulted in again, as PyTorch does by itself.
    """

    config_file: str
    opts: tuple[str, ...] = ()
    size: tuple[int, int] = (256, 384)
    batch: int = 2
    repeats: int = 5
    precision: str = "float32"
    device: str = "auto"
    memory: str = "kept"


def checked_config(settings: Settings) -> CfgNode:
    """The recipe's config, on the device.

    Raises:
        FileNotFoundError, KeyError: see `load_config`.
        ValueError: a setting is out of range.
    """
    if min(settings.size) < LEAST_SIDE:
        raise ValueError(
            f"--size must be at least {LEAST_SIDE} {LEAST_SIDE}; "
            f"got {settings.size[0]} {settings.size[1]}"
        )
    for name in ("batch", "repeats"):
        if getattr(settings, name) < 1:
            raise ValueError(f"--{name} must be at least 1; got {getattr(settings, name)}")
    if settings.precision not in (known := (*PRECISIONS, TF32)):
        raise ValueError(f"--precision must be {', '.join(known)}; got {settings.precision}")
    if settings.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu or cuda; got {settings.device}")
    if settings.memory not in ("kept", "stock"):
        raise ValueError(f"--memory must be kept or stock; got {settings.memory}")
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device must be cpu where PyTorch finds no GPU; got cuda")
    cfg = load_config(settings.config_file, settings.opts, import_code=True)
    cfg.MODEL.DEVICE = choose_device(settings)
    return cfg


def choose_device(settings: Settings) -> str:
    """The device that is meant: for auto a GPU where there is one."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return auto if settings.device == "auto" else settings.device


def describe(settings: Settings, device: torch.device) -> dict[str, Any]:
    """The settings and what they were measured on, as plain data."""
    given = settings._asdict()
    return {
        "config": given.pop("config_file"),
        **given,
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def in_words(described: Mapping[str, Any]) -> str:
    """What `describe` gives, in a line."""
    height, width = described["size"]
    return (
        f"{described['config']}: {described['batch']} images of {height} x {width}, "
        f"{described['repeats']} repeats, {described['precision']}, {described['device_name']}, "
        f"{described['threads']} threads, PyTorch {described['torch']}; random weights"
    )


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
