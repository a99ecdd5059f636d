"""OKDDip: peers that attend to each other, and a leader that they teach. Chen et al., AAAI 2020.

"Online Knowledge Distillation with Diverse Peers", arXiv:1912.00350. Shapes: M peers, N images, K
classes, D features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Side, Truth, View, given
from reviewkd_det.core.registry import register
from reviewkd_det.core.rows import log_softened
from reviewkd_det.core.settings import setting
from reviewkd_det.core.widen import widen

__all__ = ["OKDDip", "attention", "group_loss"]


def attention(queries: Tensor, keys: Tensor) -> Tensor:
    """How much each peer listens to each, for each image.

    Args:
        queries: projected vectors of the peers, (M, N, d).
        keys: other projections of them, (M, N, d).

    Returns:
        Logarithms of weights whose sum over the last axis is 1, (N, M, M).
    """
    # Not as a product of matrices, which mixed precision would compute in half precision.
    scores = (widen(queries)[:, None] * widen(keys)).sum(dim=3)  # (M, M, N)
    return scores.permute(2, 0, 1).log_softmax(dim=2)


def group_loss(
    leader: Tensor, peers: Sequence[Tensor], weights: Tensor, *, temperature: float = 3.0
) -> Tensor:
    """Compare each peer with what it attends to, and the leader with the mean of the peers.

    With p the softmax of logits divided by T: `T^2 * KL(target, p)`, the mean over images and the
    sum over the peers and the leader. A peer's target is the weighted sum of all peers' p, by whose
    weights the attention learns; the leader's is their mean.

    Args:
        leader: logits of the leader, (N, K).
        peers: logits of each peer, (N, K).
        weights: what each peer attends to, (N, M, M), in logarithms.
        temperature: T, positive.

    Returns:
        The loss, shape ().
    """
    logs = torch.stack([log_softened(x, temperature) for x in peers])  # (M, N, K)
    said = logs.detach()
    heard = weights.permute(1, 2, 0)[..., None] + said  # (M, M, N, K)
    targets = [*heard.logsumexp(dim=1), said.logsumexp(dim=0) - math.log(len(peers))]
    own = [*logs, log_softened(leader, temperature)]
    losses = [
        F.kl_div(log, target, reduction="batchmean", log_target=True)
        for log, target in zip(own, targets, strict=True)
    ]
    return temperature**2 * torch.stack(losses).sum()


@register("OKDDip")
class OKDDip(Method):
    """Lead the networks trained beside the student, the peers, by the mean of what they say."""

    needs = Need.LOGITS | Need.VECTOR | Need.PEERS | Need.ALONE
    gaussian_warmup = True

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of OKDDip; the temperature is published."""

        temperature: float = setting(3.0, "Temperature of all softmaxes.", above=0)
        dim: int = setting(8, "Features of the projections of a peer's vector.", least=1)

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        """Build the projections; see `Method`.

        Raises:
            ValueError: there is one peer, or their vectors differ in width.
        """
        super().__init__(settings, student, teacher)
        widths = [given(peer.vector) for peer in student.peers]
        if len(widths) < 2 or len(set(widths)) > 1:
            raise ValueError(
                "OKDDip must have two peers or more whose vectors are of one width; got widths "
                f"{widths}"
            )
        width = widths[0]
        self.query, self.key = (nn.Linear(width, settings.dim, bias=False) for _ in range(2))

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss of all networks, which has one part."""
        vectors = torch.stack([given(x.vector) for x in student.peers])
        weights = attention(self.query(vectors), self.key(vectors))
        logits = [given(x.logits) for x in student.peers]
        temperature = self.settings.temperature
        return {"": group_loss(given(student.logits), logits, weights, temperature=temperature)}
