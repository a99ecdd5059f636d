"""The stages of any classifier, found by running it once or twice.

Shapes: N images, C channels, H x W cells of one level, K classes. Level lists run from high to low
resolution. A map is (N, C, H, W), or (N, H, W, C) as in a Swin transformer: the axis that grows
with the images' width is W. A node is named as in `graph`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from reviewkd_det.common.tracing.graph import NotTraceableError, build_traced, trace
from reviewkd_det.common.tracing.hooks import HookedModel
from reviewkd_det.common.tracing.layout import find_height_axis

__all__ = ["find_taps", "find_vector"]

# Layers with parameters that are activations all the same.
PARAMETRIC_ACTIVATIONS = (nn.PReLU, nn.RReLU)


def find_taps(
    model: nn.Module, image_size: int, *, before_activation: bool = True, pooled: bool = True
) -> tuple[str, ...]:
    """Find a classifier's stages.

    A network of ours says where they are. In any other they are the last map of each resolution
    that depends on the image; where a network cannot be traced, the last that a module gives. What
    a block computes before it lowers the resolution belongs to that block, first resolutions with a
    single convolution are the stem, and what has none is only pooled, or the scores of an
    attention: they are left out.

    Args:
        model: maps images (N, 3, H, W) to logits (N, K).
        image_size: pixels a side of the images.
        before_activation: take a stage's map before the activation that ends it, if the model can
            be traced.
        pooled: add the pooled vector, the classifier's input, as the coarsest level; a network
            that does not pool over the whole image has none.

    Returns:
        Names for `TappedModel`, from high to low resolution.

    Raises:
        ValueError: the model has fewer than two such maps.
    """
    known = getattr(model, "tap_names", None)
    if known is not None:
        stages = known.before if before_activation else known.after
        return (*stages, known.pooled) if pooled else tuple(stages)
    nodes = _find_nodes(model, image_size)
    stages = nodes.stages()
    if len(stages) < 2:
        raise ValueError(
            f"model must have maps (N, C, H, W) of at least two resolutions; got {len(stages)} in "
            f"{type(model).__name__}; name its nodes as taps"
        )
    names = [nodes.before_activation(name) for name in stages] if before_activation else stages
    return (*names, *nodes.pooled_vectors(nodes.channels(stages[-1]))) if pooled else tuple(names)


def find_vector(model: nn.Module, image_size: int) -> str:
    """Find the vector that a classifier's last layer reads, before dropout.

    Args:
        model: maps images (N, 3, H, W) to logits (N, K).
        image_size: pixels a side of the images.

    Returns:
        Its name for `TappedModel`.

    Raises:
        ValueError: the logits are made of no vector.
    """
    known = getattr(model, "tap_names", None)
    if known is not None:
        return str(known.pooled)
    found = _find_nodes(model, image_size).last_vector()
    if not found:
        raise ValueError(
            f"model must have a vector before its logits; got none in {type(model).__name__}"
        )
    return found


def _find_nodes(model: nn.Module, image_size: int) -> "_Nodes":
    try:
        traced = trace(model)[1]
    except NotTraceableError:
        return _HookedNodes(model, image_size)
    return _TracedNodes(model, image_size, traced)


class _Nodes(ABC):
    """What the nodes of a classifier give for one square image, in the order of execution.

    Args:
        values: by node for a square image.
        wider: by node for an image twice as wide; empty where the network takes none.
    """

    def __init__(self, values: Mapping[str, Any], wider: Mapping[str, Any]) -> None:
        self.shapes = {n: tuple(v.shape) for n, v in values.items() if isinstance(v, Tensor)}
        # Of each map the axis of its height, and that. Maps of one cell are the inner parts of
        # channel attention, others than of the one image are standardised weights.
        self.height_axes = {
            name: axis
            for name, shape in self.shapes.items()
            if len(shape) == 4 and shape[0] == 1
            if (axis := find_height_axis(shape, wider.get(name))) and shape[axis] > 1
        }
        self.sizes = {name: self.shapes[name][axis] for name, axis in self.height_axes.items()}

    def channels(self, name: str) -> int:
        """The number of channels of a map."""
        return self.shapes[name][1 if self.height_axes[name] == 2 else 3]

    def stages(self) -> list[str]:
        """The last node of each resolution, from high to low."""
        found: list[str] = []
        for size in sorted(set(self.sizes.values()), reverse=True):
            names = [name for name, other in self.sizes.items() if other == size]
            whole = [name for name in names if not self._enters_a_lower_resolution(name)]
            convolutions = sum(map(self._convolves, whole)) or sum(map(self._convolves, names))
            if convolutions > (0 if found else 1):
                found.append((whole or names)[-1])
        return found

    def pooled_vectors(self, channels: int) -> list[str]:
        """The first vector of that many channels that is not the logits; empty without one."""
        *before_logits, _ = self.shapes
        return [name for name in before_logits if self.shapes[name] == (1, channels)][:1]

    def last_vector(self) -> str:
        """The last vector before the logits that no dropout gives; "" without one."""
        *before_logits, logits = self.shapes
        vectors = [
            name
            for name in before_logits
            if len(self.shapes[name]) == 2 and self.shapes[name][0] == 1
            if not self._drops(name)
        ]
        return vectors[-1] if vectors and len(self.shapes[logits]) == 2 else ""

    def before_activation(self, name: str) -> str:
        """The node before an activation that ends a stage; the node itself where none does."""
        return name

    def _drops(self, name: str) -> bool:
        return isinstance(self._module(name), nn.Dropout)

    def _enters_a_lower_resolution(self, name: str) -> bool:
        """Whether a block around this node has one more resolution, and ends with that."""
        *parts, _ = name.split(".")
        for end in range(1, len(parts) + 1):
            block = ".".join(parts[:end]) + "."
            sizes = [size for other, size in self.sizes.items() if other.startswith(block)]
            if len(set(sizes)) == 2 and sizes[-1] != self.sizes[name]:
                return True
        return False

    def _convolves(self, name: str) -> bool:
        module = self._module(name)  # one that is run as a whole may hold several
        # A linear layer is a convolution of maps whose channels come last.
        kinds = nn.Conv2d if self.height_axes[name] == 2 else (nn.Conv2d, nn.Linear)
        return module is not None and any(isinstance(x, kinds) for x in module.modules())

    @abstractmethod
    def _module(self, name: str) -> nn.Module | None:
        """The module that gives a node; None where it is a function's."""


class _HookedNodes(_Nodes):
    """What each module of a classifier gives."""

    def __init__(self, model: nn.Module, image_size: int) -> None:
        self.modules = {name: module for name, module in model.named_modules() if name}
        hooked = HookedModel(model, list(self.modules), "taps")

        def run(width: int) -> dict[str, Any]:
            return hooked.run(_blank(model, image_size, width))[1]

        super().__init__(*_square_and_wider(model, run, image_size))

    def _module(self, name: str) -> nn.Module | None:
        return self.modules[name]


class _TracedNodes(_Nodes):
    """What each node of a classifier's graph gives that depends on the image."""

    def __init__(self, model: nn.Module, image_size: int, nodes: dict[str, fx.Node]) -> None:
        self.nodes = nodes
        self.names = {node: name for name, node in nodes.items()}
        graph = next(iter(self.names)).graph
        (output,) = [node for node in graph.nodes if node.op == "output"]
        output.args = (dict(nodes),)
        self.net = net = build_traced(model, graph, graph)
        values, wider = _square_and_wider(
            net, lambda width: net(_blank(model, image_size, width)), image_size
        )
        seen = self._depending_on_images(graph, values)
        super().__init__({k: v for k, v in values.items() if nodes[k] in seen}, wider)

    def _depending_on_images(self, graph: fx.Graph, values: Mapping[str, Any]) -> set[fx.Node]:
        """The nodes that get more of the images than their size: none that is a parameter alone."""
        seen: set[fx.Node] = set()
        for node in graph.nodes:
            value = values.get(self.names.get(node, ""))
            is_number = isinstance(value, int | float | torch.Size)
            if node.op == "placeholder" or (not is_number and seen & set(node.all_input_nodes)):
                seen.add(node)
        return seen

    def before_activation(self, name: str) -> str:
        """Walk back over what maps one tensor to another of its shape without weights."""
        module, inputs = self._module(name), self.nodes[name].all_input_nodes
        has_weights = module is not None and len(module.state_dict()) > 0
        if len(inputs) == 1 and (isinstance(module, PARAMETRIC_ACTIVATIONS) or not has_weights):
            before = self.names.get(inputs[0], "")
            if self.shapes.get(before) == self.shapes[name]:
                return self.before_activation(before)
        return name

    def _convolves(self, name: str) -> bool:
        return super()._convolves(name) or self.nodes[name].target is F.conv2d

    def _drops(self, name: str) -> bool:
        return super()._drops(name) or self.nodes[name].target is F.dropout

    def _module(self, name: str) -> nn.Module | None:
        node = self.nodes[name]
        return self.net.get_submodule(node.target) if node.op == "call_module" else None


@torch.no_grad()
def _square_and_wider(
    net: nn.Module, run: Callable[[int], dict[str, Any]], image_size: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a network gives for a square image, and for one twice as wide where it takes that."""
    was_training = net.training
    net.eval()
    try:
        values = run(image_size)
        try:
            return values, run(2 * image_size)
        except Exception:  # whatever a network of one image size raises
            return values, {}
    finally:
        net.train(was_training)


def _blank(model: nn.Module, height: int, width: int) -> Tensor:
    return torch.zeros(1, 3, height, width, device=next(model.parameters(), torch.empty(0)).device)
