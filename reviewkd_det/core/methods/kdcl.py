"""KDCL: networks that are trained together, by an ensemble of all. Guo et al., CVPR 2020.

"Online Knowledge Distillation via Collaborative Learning". Shapes: M networks, N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Truth, View, given
from reviewkd_det.core.methods.kd import distillation_loss
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import setting
from reviewkd_det.core.widen import widen

__all__ = ["ENSEMBLES", "KDCL", "ensemble_logits"]

ENSEMBLES = ("mean", "best", "minimum")


def ensemble_logits(logits: Sequence[Tensor], target: Tensor, kind: str) -> Tensor:
    """Make one network's logits of those of several.

    "mean" is their mean, which the paper weighs; "best" are those of the network with the smallest
    cross entropy on the batch (KDCL-Naive); "minimum" are, class by class, the smallest of the
    logits less that of the true class (KDCL-MinLogit): an ensemble that is the
    surest of the true class.

    Args:
        logits: logits of each network, (N, K).
        target: true classes, (N,); an image without one, below 0, has the mean.
        kind: one of these.

    Returns:
        Logits without gradient, (N, K).
    """
    every = torch.stack([widen(x.detach()) for x in logits])  # (M, N, K)
    mean = every.mean(dim=0)
    if kind == "mean":
        return mean
    if kind == "best":
        losses = [F.cross_entropy(x, target, ignore_index=-1, reduction="sum") for x in every]
        return every[torch.stack(losses).argmin()]
    index = target.clamp(min=0).expand(len(every), -1)[..., None]
    smallest = (every - every.gather(2, index)).amin(dim=0)
    return torch.where(target[:, None] < 0, mean, smallest)


@register("KDCL")
class KDCL(Method):
    """Learn, with the networks trained beside the student, from an ensemble of all of them.

    All see the same images, which the paper augments for each network anew.
    """

    needs = Need.LOGITS | Need.TARGET | Need.PEERS | Need.ALONE

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of KDCL; the temperature is published."""

        temperature: float = setting(2.0, "Temperature of all softmaxes.", above=0)
        ensemble: str = setting(
            "minimum",
            "How the networks' logits become those that all learn from: their mean, those of the "
            "best network on the batch, or the minimum of each class less that of the true one.",
            choices=ENSEMBLES,
        )

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss of all networks, which has one part."""
        s, logits = self.settings, [given(x.logits) for x in (student, *student.peers)]
        ensemble = ensemble_logits(student.past or logits, given(truth.target), s.ensemble)
        losses = [distillation_loss(x, ensemble, temperature=s.temperature) for x in logits]
        return {"": torch.stack(losses).sum()}
