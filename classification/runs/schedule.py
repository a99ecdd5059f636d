"""The learning rate over a run."""

from itertools import pairwise

from fvcore.common.config import CfgNode
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)

__all__ = ["build_schedule"]


def build_schedule(solver: CfgNode) -> ParamScheduler:
    """The factor of SOLVER.LR as a function of the part of the run that is done, in [0, 1).

    Args:
        solver: section SOLVER of the config.

    Raises:
        ValueError: the milestones do not increase from 1, or the warm-up is longer than the run.
    """
    epochs, warmup = solver.EPOCHS, solver.WARMUP_EPOCHS
    if not 0 <= warmup < epochs:
        raise ValueError(
            f"SOLVER.WARMUP_EPOCHS must be from 0 to less than {epochs} epochs; got {warmup}"
        )
    schedule: ParamScheduler = CosineParamScheduler(1.0, 0.0)
    if solver.SCHEDULE == "multistep":
        if any(a >= b for a, b in pairwise([0, *solver.MILESTONES])):
            raise ValueError(
                f"SOLVER.MILESTONES must increase from 1; got {tuple(solver.MILESTONES)}"
            )
        milestones = [epoch for epoch in solver.MILESTONES if epoch < epochs]
        values = [solver.GAMMA**i for i in range(len(milestones) + 1)]
        schedule = MultiStepParamScheduler(values, epochs, milestones)
    if not warmup:
        return schedule
    part = warmup / epochs
    return CompositeParamScheduler(
        [LinearParamScheduler(0.0, schedule(part)), schedule],
        lengths=[part, 1 - part],
        interval_scaling=["rescaled", "fixed"],
    )
