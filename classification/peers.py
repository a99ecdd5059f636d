"""Networks that are trained beside a student, to learn from it and to teach it.

Shapes: N images, C channels, H x W cells, K classes.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from classification.config_checks import BRANCH
from classification.models import create_model
from classification.reading.taps import TappedModel
from reviewkd_det.common.tracing.stages import find_taps, find_vector
from reviewkd_det.core import Need, Side, View, given

__all__ = ["PastNetworks", "Peers", "build_peers", "find_shared"]


class Peers(nn.Module):
    """Run the networks beside a student.

    Args:
        networks: the networks, whole or without their first stages.
        begin_late: which of them are given the map that they share with the student.
    """

    def __init__(self, networks: Sequence[TappedModel], begin_late: Sequence[bool]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.begin_late = tuple(begin_late)

    def forward(self, inputs: Tensor, shared: Tensor | None) -> list[View]:
        """Classify by each.

        Args:
            inputs: what the student is given, (N, 3, H, W).
            shared: map of the student's that some of them begin with, (N, C, H, W).
        """
        return [self.classify(i, inputs, shared) for i in range(len(self.networks))]

    def classify(self, index: int, inputs: Tensor, shared: Tensor | None) -> View:
        """Classify by one of them; the arguments are those of `forward`."""
        view: View = self.networks[index](given(shared) if self.begin_late[index] else inputs)
        return view

    @torch.no_grad()
    def find_sides(self, student: TappedModel, image_size: int, classes: int) -> list[Side]:
        """What methods are told of each network, by running it.

        Args:
            student: the student that they stand beside.
            image_size: pixels a side of the images.
            classes: number of the classes.
        """
        images = torch.zeros(1, 3, image_size, image_size)
        was_training = student.training
        views = self.eval()(images, student.eval()(images).shared)
        self.train(was_training)
        student.train(was_training)
        widths = [None if view.vector is None else view.vector.shape[1] for view in views]
        return [Side(classes=classes, vector=width) for width in widths]


class PastNetworks(nn.Module):
    """What a student and its peers were some steps ago; they do not learn.

    Anil et al., "Large Scale Distributed Neural Network Training through Online Distillation", ICLR
    2018, arXiv:1804.03235.

    Args:
        student: the student.
        peers: the networks beside it.
        period: steps from one exchange to the next.
    """

    def __init__(self, student: TappedModel, peers: Peers, period: int) -> None:
        super().__init__()
        self.student, self.peers = deepcopy(student), deepcopy(peers)
        self.requires_grad_(False)
        self.period, self.steps = period, 0
        self.train(False)

    def follow(self, student: TappedModel, peers: Peers) -> None:
        """Take notice of a training step; every so many of them take over what the two are now."""
        if self.steps % self.period == 0:
            self.student.load_state_dict(student.state_dict())
            self.peers.load_state_dict(peers.state_dict())
        self.steps += 1

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> list[Tensor]:
        """The logits, (N, K), of the student and of each peer.

        Args:
            inputs: what the student is given, (N, 3, H, W).
        """
        view = self.student(inputs)
        return [x.logits for x in (view, *self.peers(inputs, view.shared))]

    def train(self, mode: bool = True) -> "PastNetworks":
        """Stay in eval mode."""
        return super().train(False)

    def get_extra_state(self) -> dict[str, int]:
        """The number of steps, for the state dict."""
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Load the number of steps."""
        self.steps = state["steps"]


def find_shared(cfg: CfgNode, student: nn.Module) -> str:
    """The node of a student at which branches begin: its last stage but one; "" without any.

    Args:
        cfg: config of the run.
        student: the student.

    Raises:
        ValueError: it has fewer than two stages.
    """
    if BRANCH not in cfg.PEERS.NAMES:
        return ""
    return find_taps(student, cfg.INPUT.SIZE, before_activation=False, pooled=False)[-2]


def build_peers(cfg: CfgNode, num_classes: int, shared: str, needs: Need) -> Peers:
    """Build the networks of PEERS.NAMES with random weights.

    Args:
        cfg: config of the run.
        num_classes: number of classes of the data.
        shared: node of the student at which branches begin.
        needs: what methods need.

    Raises:
        KeyError: a network's name is unknown.
        ValueError: the student cannot be traced, or reads more than that node behind it.
    """
    networks = []
    for name in cfg.PEERS.NAMES:
        is_branch = name == BRANCH
        model = create_model(cfg.MODEL.NAME if is_branch else name, num_classes=num_classes)
        vector = find_vector(model, cfg.INPUT.SIZE) if Need.VECTOR in needs else ""
        start = shared if is_branch else ""
        networks.append(TappedModel(model, key="PEERS.NAMES", vector=vector, start=start))
    return Peers(networks, [name == BRANCH for name in cfg.PEERS.NAMES])
