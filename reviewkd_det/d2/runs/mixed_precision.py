"""In which precision a step computes: automatic mixed precision, on a GPU and on a CPU."""

import logging
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from reviewkd_det.d2.teacher.backbone import PRECISIONS
from reviewkd_det.d2.teacher.precision import AUTO_PRECISION, computes_in_bfloat16

__all__ = ["InBFloat16", "settle_precision", "step_precision"]

HALVES = [name for name in PRECISIONS if name != "float32"]

logger = logging.getLogger(__name__)


def settle_precision(name: str, device: str, key: str) -> str:
    """The precision of a step in automatic mixed precision.

    Args:
        name: "float16", "bfloat16" or "auto": float16 on a GPU, as Detectron2 has it, and bfloat16
            on a CPU.
        device: name of the device, as MODEL.DEVICE has it.
        key: config key of the name, for the error sentence.

    Returns:
        "float16" or "bfloat16".

    Raises:
        ValueError: nothing has that name, or it is float16 on the CPU, where its scaled gradients
            are not supported.
    """
    on_cpu = torch.device(device).type == "cpu"
    known = [AUTO_PRECISION, *(["bfloat16"] if on_cpu else HALVES)]
    if name not in known:
        raise ValueError(f"{key} must be one of {known} on device {device}; got {name!r}")
    return ("bfloat16" if on_cpu else "float16") if name == AUTO_PRECISION else name


def step_precision(cfg: CfgNode) -> str:
    """The precision of a step of a YAML config: "float32" without SOLVER.AMP.ENABLED.

    Raises:
        ValueError: see `settle_precision`.
    """
    amp = cfg.SOLVER.AMP
    if not amp.ENABLED:
        return "float32"
    return settle_precision(amp.PRECISION, cfg.MODEL.DEVICE, "SOLVER.AMP.PRECISION")


class InBFloat16(nn.Module):
    """A network whose forward pass is in automatic mixed precision with bfloat16.

    Its range is that of float32, so no gradient is scaled.

    Args:
        model: network from a batch to its losses.
        device: type of the device, such as "cpu".
    """

    def __init__(self, model: nn.Module, device: str) -> None:
        super().__init__()
        self.model, self.device = model, device
        if not computes_in_bfloat16(device):
            logger.warning(
                "A step is in bfloat16, and device %s has no units for it: it may take longer than "
                "in float32",
                device,
            )

    def forward(self, batch: Any) -> Any:
        """Compute the losses of a batch."""
        with torch.autocast(self.device, torch.bfloat16):
            return self.model(batch)
