"""DML: networks that are trained together, each by what the others say. Zhang et al., CVPR 2018.

"Deep Mutual Learning", arXiv:1706.00384. Shapes: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Truth, View, given
from reviewkd_det.core.methods.kd import distillation_loss
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import setting

__all__ = ["DML", "mutual_loss"]


def mutual_loss(
    logits: Sequence[Tensor], targets: Sequence[Tensor], *, temperature: float = 1.0
) -> Tensor:
    """Compare each network's probabilities with those of every other one.

    The sum over the networks of the mean over the others of `T^2 * KL(p_other, p_own)`, which is
    the mean over the images; the other's take no gradient. Section 3.

    Args:
        logits: logits of two networks or more, (N, K) each.
        targets: what each says to the others, as `logits`; such as its logits some steps ago.
        temperature: T, positive.

    Returns:
        The loss, shape ().
    """
    losses = [
        distillation_loss(own, other.detach(), temperature=temperature)
        for i, own in enumerate(logits)
        for j, other in enumerate(targets)
        if j != i
    ]
    return torch.stack(losses).sum() / (len(logits) - 1)


@register("DML")
class DML(Method):
    """Learn from the networks trained beside the student, and let them learn from it.

    Where the views have what the networks said some steps ago, each learns from that:
    codistillation (Anil et al., ICLR 2018, arXiv:1804.03235).
    """

    needs = Need.LOGITS | Need.PEERS | Need.ALONE

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of DML, as published."""

        temperature: float = setting(1.0, "Temperature of all softmaxes.", above=0)

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss of all networks, which has one part."""
        logits = [given(x.logits) for x in (student, *student.peers)]
        targets = student.past or logits
        return {"": mutual_loss(logits, targets, temperature=self.settings.temperature)}
