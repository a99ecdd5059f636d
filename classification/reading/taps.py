"""Feature maps of any classifier, tapped by the name of a node or module.

Shapes: N images, C channels, H x W cells of one level, K classes. Level lists run from high to low
resolution. A node is named as torchvision's feature extraction names it: the path of its module,
or the path of the module that calls it and the function.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reviewkd_det.common.tracing.graph import NotTraceableError, build_tapped, find_norms
from reviewkd_det.common.tracing.hooks import HookedModel
from reviewkd_det.common.tracing.layout import Layout, as_map, find_layout
from reviewkd_det.core import Level, Side, View

__all__ = ["TappedModel"]

logger = logging.getLogger(__name__)


class TappedModel(nn.Module):
    """Run a classifier once for its logits and the maps of some of its nodes.

    The classifier is traced, not edited, and shares its parameters with the traced one; where it
    cannot be traced, hooks on its modules give the maps. Its layers that overwrite their input stop
    doing so, else a map before such a layer would be lost.

    Args:
        model: maps images (N, 3, H, W) to logits (N, K).
        names: nodes whose outputs are the levels; a vector (N, C) becomes a level of one cell, and
            tokens or maps whose channels come last become maps once `find_levels` has run.
            None are needed, and then nothing is traced.
        key: where the names are from, for error sentences.
        vector: node whose output is the vector (N, D) that the classifier's last layer reads; ""
            where it is not needed.
        shared: node whose output is the map that other networks begin with; "" for none.
        start: node at which the classifier begins, with what that gives for images; "" for none.

    Raises:
        ValueError: the model has no node, or where it cannot be traced no module, of a name.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str] = (),
        key: str = "taps",
        *,
        vector: str = "",
        shared: str = "",
        start: str = "",
    ) -> None:
        super().__init__()
        self.names, self.key, self.vector, self.shared = tuple(names), key, vector, shared
        self.layouts = (Layout(),) * len(self.names)
        taps = [*names, *filter(None, (vector, shared))]
        self.is_tapped = bool(taps or start)
        if not self.is_tapped:
            self.net = model
            return
        try:
            self.net = build_tapped(model, taps, key, start=start)
        except NotTraceableError as error:
            if start:
                raise
            logger.info("%s; hooks on its modules give the levels", error)
            self.net = HookedModel(model, taps, key)
        self.train(model.training)

    def forward(self, images: Tensor) -> View:
        """Classify.

        Args:
            images: (N, 3, H, W), normalised.
        """
        return self.read(images)[0]

    def read(self, images: Tensor) -> tuple[View, list[Tensor]]:
        """Classify, and give the nodes' outputs as they are in the network as well.

        Gradients of the network's own loss reach these, and not the maps that are made of them.

        Args:
            images: (N, 3, H, W), normalised.
        """
        if not self.is_tapped:
            return View((), self.net(images)), []
        logits, outputs = self.net(images)
        count = len(self.names)
        levels = list(map(as_map, outputs[:count], self.layouts))
        vector = outputs[count].flatten(1) if self.vector else None
        shared = outputs[-1] if self.shared else None
        points = outputs[:-1] if self.shared else outputs
        return View(levels, logits, vector, shared=shared), points

    @torch.no_grad()
    def find_side(self, image_size: int, classes: int, *, with_norms: bool = False) -> Side:
        """What methods are told of the network for square images, by running it.

        Args:
            image_size: pixels a side of the images.
            classes: number of its classes.
            with_norms: whether the batch norms that give the levels are looked for.

        Raises:
            ValueError: see `find_levels`.
        """
        levels, width, shared = self.find_levels(image_size), None, None
        if self.vector or self.shared:
            was_training = self.training
            outputs = self.eval()._run(image_size, image_size, 0.0)
            self.train(was_training)
            width = outputs[len(self.names)].flatten(1).shape[1] if self.vector else None
            shared = outputs[-1].shape[1] if self.shared else None
        if with_norms and levels:
            found = find_norms(self.net)[: len(levels)]
            norms = [None if norm is None else _weights(norm) for norm in found]
            levels = tuple(x._replace(norm=norm) for x, norm in zip(levels, norms, strict=True))
        return Side(levels, classes, vector=width, shared=shared)

    @torch.no_grad()
    def find_levels(self, image_size: int) -> tuple[Level, ...]:
        """Find the levels for square images, and how each output is a map, by running the model.

        Args:
            image_size: pixels a side of the images.

        Raises:
            ValueError: a tap gives no map, vector or tokens, or something that does not depend on
                the images.
        """
        if not self.names:
            return ()
        was_training = self.training
        self.eval()
        outputs, others = (
            self._run(image_size, image_size, value)[: len(self.names)] for value in (0.0, 1.0)
        )
        try:
            wider = self._run(image_size, 2 * image_size, 0.0)[: len(self.names)]
        except Exception:  # whatever a network of one image size raises
            wider = [None] * len(outputs)
        self.train(was_training)
        for name, one, other in zip(self.names, outputs, others, strict=True):
            if isinstance(one, Tensor) and not one.is_meta and torch.equal(one, other):
                raise ValueError(
                    f"{self.key} must depend on the images; got '{name}', which gives the same for "
                    "a black and a white one"
                )
        self.layouts = tuple(map(find_layout, outputs, wider, self.names))
        maps = map(as_map, outputs, self.layouts)
        return tuple(
            Level(name, level.shape[1], (level.shape[2], level.shape[3]))
            for name, level in zip(self.names, maps, strict=True)
        )

    def _run(self, height: int, width: int, value: float) -> list[Any]:
        device = next(self.parameters(), torch.empty(0)).device
        images = torch.full((1, 3, height, width), value, device=device)
        outputs: list[Any] = self.net(images)[1]
        return outputs


def _weights(norm: nn.BatchNorm2d) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Weights and biases of a batch norm, those of one without any being 1 and 0."""
    weight, bias = norm.weight, norm.bias
    if weight is None:
        return (1.0,) * norm.num_features, (0.0,) * norm.num_features
    return tuple(weight.tolist()), tuple(bias.tolist())
