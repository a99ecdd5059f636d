"""In which precision a teacher's backbone runs, where nobody says."""

import copy
import logging
from typing import Any

import torch
from torch.nn import functional as F

from reviewkd_det.d2.teacher.backbone import TeacherBackbone

__all__ = ["AUTO_PRECISION", "choose_precision", "computes_in_bfloat16"]

AUTO_PRECISION = "auto"
MOST = 0.01  # of what a level of the fixed batch may differ by, in the level's own norm
PIXELS, CELLS = (
    256,
    (24, 32),
)  # the fixed batch is smooth noise, of a number in each of 8 x 8 pixels
UNITS = ("avx512_bf16", "amx_bf16")  # of processors

logger = logging.getLogger(__name__)


def computes_in_bfloat16(device: str) -> bool:
    """Whether a device has units for bfloat16, so that it is no slower than float32.

    Args:
        device: name of the device, as MODEL.DEVICE has it.
    """
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # of newer versions
    return device == "cpu" and any(known.get(unit) for unit in UNITS)


@torch.no_grad()
def choose_precision(teacher: TeacherBackbone, device: str) -> torch.dtype:
    """Take bfloat16 where the device computes in it and the teacher's levels hardly change.

    No time is measured, so a machine chooses the same in every run.

    Args:
        teacher: the teacher in float32, on the CPU; it is left as it is.
        device: where it is to run.

    Returns:
        bfloat16 where each level of a fixed batch stays within 1% of float32, by its norm; else
        float32.
    """
    if not computes_in_bfloat16(device):
        return torch.float32
    generator = torch.Generator().manual_seed(0)
    noise = PIXELS * torch.rand(2, 3, *CELLS, generator=generator)
    images = list(F.interpolate(noise, scale_factor=8, mode="bilinear"))
    size = (images[0].shape[1], images[0].shape[2])
    exact = teacher(images, size)
    rounded = copy.deepcopy(teacher).convert(torch.bfloat16)(images, size)
    errors = {
        name: float((rounded[name].float() - level).norm() / level.norm())
        for name, level in exact.items()
    }
    largest = max(errors.values())
    is_near = largest <= MOST  # not a number is not
    chosen = torch.bfloat16 if is_near else torch.float32
    logger.info(
        "MODEL.DISTILL.TEACHER.PRECISION auto: %s, since in bfloat16 the teacher's levels differ "
        "by %.2f%% at most, where %g%% may be",
        str(chosen).removeprefix("torch."),
        100 * largest,
        100 * MOST,
    )
    return chosen
