"""How large the losses of the methods are beside the student's own, at the start of a training."""

import logging
import math
from collections.abc import Mapping

from reviewkd_det.core import GradientShare, Weighted

__all__ = ["log_ratios"]

LOWEST, HIGHEST = 0.01, 10


def log_ratios(
    own: float,
    losses: Mapping[str, float],
    methods: Mapping[str, Weighted],
    step: float,
    key: str,
    logger: logging.Logger,
) -> None:
    """Log each method's loss in those of the student, and warn where it is far from them.

    Args:
        own: sum of the student's own losses.
        losses: weighted loss of each method, by the method's name.
        methods: the methods by name; one whose factor is 0 at this step is left out.
        step: how far the training is, in the unit of their warm-ups.
        key: config key of the section that holds a node for each method.
        logger: logger of the customer.
    """
    for name, loss in losses.items():
        if not methods[name].factor(step) or not (math.isfinite(loss) and math.isfinite(own)):
            continue  # off, or about to end the run with a sentence of its own
        weight = methods[name].loss_weight
        if isinstance(weight, GradientShare):
            how = "found by its gradient" if weight.is_measured else "since no gradient is found"
            logger.info(
                "loss_%s has the weight %.3g at the start, %s",
                name.lower(), methods[name].factor(step), how,
            )  # fmt: skip
            continue
        ratio = loss / own if own else math.inf
        logger.info(
            "loss_%s is %.3g times the student's own losses at the start", name.lower(), ratio
        )
        if LOWEST <= ratio <= HIGHEST:
            continue
        remedies = [f"{key}.{name.upper()}.LOSS_WEIGHT", methods[name].method.remedy]
        how = f"more than {HIGHEST} times" if ratio > HIGHEST else "too small beside"
        logger.warning(
            "loss_%s is %s the student's own losses, %.3g for %.3g; where training suffers, "
            "change %s",
            name.lower(), how, loss, own, ", or ".join(filter(None, remedies)),
        )  # fmt: skip
