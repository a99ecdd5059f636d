"""The optimiser and the schedule of its learning rate, from a YAML config."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler as build_detectron2_scheduler
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn

from reviewkd_det.d2.runs.mixed_precision import step_precision

__all__ = ["build_lr_scheduler", "build_optimizer"]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that `SOLVER.OPTIMIZER` names, over everything that learns."""
    if cfg.SOLVER.OPTIMIZER == "SGD":
        return build_detectron2_optimizer(cfg, model)
    if kind := {"ADAM": torch.optim.Adam, "AdamW": torch.optim.AdamW}.get(cfg.SOLVER.OPTIMIZER):
        parameters = get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        optimizer = maybe_add_gradient_clipping(cfg, kind)
        return optimizer(
            parameters,
            lr=cfg.SOLVER.BASE_LR,
            weight_decay=cfg.SOLVER.WEIGHT_DECAY,
            # The fused step clips gradients that automatic mixed precision has still scaled.
            fused=step_precision(cfg) != "float16",
        )
    raise ValueError(f"SOLVER.OPTIMIZER must be SGD, AdamW or ADAM; got {cfg.SOLVER.OPTIMIZER}")


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
    """Detectron2's, which anneals to a part of the learning rate that it divides by that.

    That of its project DeepLab is there where the project's keys are.

    Raises:
        ValueError: the learning rate does not suit, or no scheduler has that name.
    """
    name = cfg.SOLVER.LR_SCHEDULER_NAME
    if name == "WarmupCosineLR" and cfg.SOLVER.BASE_LR == 0:
        raise ValueError(f"SOLVER.BASE_LR must not be 0 with SOLVER.LR_SCHEDULER_NAME {name}")
    if name == "WarmupPolyLR" and "POLY_LR_POWER" in cfg.SOLVER:
        from detectron2.projects.deeplab import build_lr_scheduler as build_deeplab_scheduler

        return build_deeplab_scheduler(cfg, optimizer)
    try:
        return build_detectron2_scheduler(cfg, optimizer)
    except ValueError as error:
        if "Unknown LR scheduler" not in str(error):
            raise
        raise ValueError(
            f"SOLVER.LR_SCHEDULER_NAME must be one of Detectron2's, such as WarmupMultiStepLR and "
            f"WarmupCosineLR, or WarmupPolyLR with MODULES of its project DeepLab; got {name!r}"
        ) from error
