"""ONE: branches of one network, taught by the ensemble of all. Lan et al., NeurIPS 2018.

"Knowledge Distillation by On-the-Fly Native Ensemble", arXiv:1806.04606. Shapes: M branches, N
images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Side, Truth, View, given
from reviewkd_det.core.methods.kd import distillation_loss
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import setting
from reviewkd_det.core.widen import widen

__all__ = ["ONE", "gated_logits"]


def gated_logits(logits: Sequence[Tensor], gates: Tensor) -> Tensor:
    """Add up the branches' logits by the softmax of their gates.

    Args:
        logits: logits of each branch, (N, K).
        gates: score of each branch for each image, (N, M).

    Returns:
        Logits of the ensemble, (N, K).
    """
    weights = widen(gates).softmax(dim=1)  # (N, M)
    every = torch.stack([widen(x) for x in logits], dim=1)  # (N, M, K)
    return (weights[:, :, None] * every).sum(dim=1)


@register("ONE")
class ONE(Method):
    """Learn, with the branches beside the student's last stage, from their gated ensemble.

    A gate of one linear layer, a batch norm and a ReLU reads the map that the branches share,
    averaged over its cells. The ensemble learns from the labels; that part is weighted as the rest.
    """

    needs = Need.LOGITS | Need.TARGET | Need.PEERS | Need.SHARED | Need.ALONE
    gaussian_warmup = True

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of ONE, as published."""

        temperature: float = setting(3.0, "Temperature of all softmaxes.", above=0)

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        """Build the gate; see `Method`."""
        super().__init__(settings, student, teacher)
        branches = 1 + len(student.peers)
        self.gate = nn.Sequential(
            nn.Linear(given(student.shared), branches), nn.BatchNorm1d(branches), nn.ReLU()
        )

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss of the branches and that of the ensemble."""
        logits = [given(x.logits) for x in (student, *student.peers)]
        ensemble = gated_logits(logits, self.gate(given(student.shared).mean(dim=(2, 3))))
        taught = ensemble.detach()
        losses = [
            distillation_loss(x, taught, temperature=self.settings.temperature) for x in logits
        ]
        target = given(truth.target)
        labels = F.cross_entropy(ensemble, target, ignore_index=-1, reduction="sum")
        return {
            "branches": torch.stack(losses).sum(),
            "ensemble": labels / (target >= 0).sum().clamp(min=1),
        }
