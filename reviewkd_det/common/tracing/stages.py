"""The stages of any traceable classifier, found by running it once or twice.

Shapes: N images, C channels, H x W cells of one level, K classes. Level lists run from high to low
resolution. A map is (N, C, H, W), or (N, H, W, C) as in a Swin transformer: the axis that grows
with the images' width is W. A node is named as in `graph`.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from reviewkd_det.common.tracing.graph import build_traced, trace

__all__ = ["find_taps"]

# Layers with parameters that are activations all the same.
PARAMETRIC_ACTIVATIONS = (nn.PReLU, nn.RReLU)


def find_taps(
    model: nn.Module, image_size: int, *, before_activation: bool = True, pooled: bool = True
) -> tuple[str, ...]:
    """Find a classifier's stages.

    A network of ours says where they are. In any other they are the last map of each resolution
    that depends on the image. What a block computes before it lowers the resolution belongs to
    that block, first resolutions with a single convolution are the stem, and what has none is only
    pooled, or the scores of an attention: they are left out.

    Args:
        model: maps images (N, 3, H, W) to logits (N, K).
        image_size: pixels a side of the images.
        before_activation: take a stage's map before the activation that ends it.
        pooled: add the pooled vector, the classifier's input, as the coarsest level; a network
            that does not pool over the whole image has none.

    Returns:
        Names for `TappedModel`, from high to low resolution.

    Raises:
        ValueError: the model cannot be traced, or has fewer than two such maps.
    """
    known = getattr(model, "tap_names", None)
    if known is not None:
        stages = known.before if before_activation else known.after
        return (*stages, known.pooled) if pooled else tuple(stages)
    nodes = _TracedNodes(model, image_size)
    stages = nodes.stages()
    if len(stages) < 2:
        raise ValueError(
            f"model must have maps (N, C, H, W) of at least two resolutions; got {len(stages)} in "
            f"{type(model).__name__}; name its nodes as taps"
        )
    names = [nodes.before_activation(name) for name in stages] if before_activation else stages
    return (*names, *nodes.pooled_vectors(nodes.channels(stages[-1]))) if pooled else tuple(names)


class _TracedNodes:
    """The graph of a classifier, and what each node gives for one square image."""

    def __init__(self, model: nn.Module, image_size: int) -> None:
        _, self.nodes = trace(model)
        self.names = {node: name for name, node in self.nodes.items()}
        graph = next(iter(self.names)).graph
        (output,) = [node for node in graph.nodes if node.op == "output"]
        output.args = (dict(self.nodes),)
        self.net = build_traced(model, graph, graph).eval()
        values = self._run(model, image_size, image_size)
        # In the order of execution.
        self.shapes = {n: tuple(v.shape) for n, v in values.items() if isinstance(v, Tensor)}
        try:
            wider = self._run(model, image_size, 2 * image_size)
        except Exception:  # whatever a network of one image size raises
            wider = {}
        self.net.train(model.training)  # the parts are shared with the model
        seen = self._depending_on_images(graph, values)
        # Of each map the axis of its height, and that. Maps of one cell are the inner parts of
        # channel attention, others than of the one image are standardised weights.
        self.height_axes = {
            name: axis
            for name, shape in self.shapes.items()
            if len(shape) == 4 and shape[0] == 1 and self.nodes[name] in seen
            for axis in _height_axis(shape, wider.get(name))
            if shape[axis] > 1
        }
        self.sizes = {name: self.shapes[name][axis] for name, axis in self.height_axes.items()}

    @torch.no_grad()
    def _run(self, model: nn.Module, height: int, width: int) -> dict[str, Any]:
        device = next(model.parameters()).device
        values: dict[str, Any] = self.net(torch.zeros(1, 3, height, width, device=device))
        return values

    def _depending_on_images(self, graph: fx.Graph, values: dict[str, Any]) -> set[fx.Node]:
        """The nodes that get more of the images than their size: none that is a parameter alone."""
        seen: set[fx.Node] = set()
        for node in graph.nodes:
            value = values.get(self.names.get(node, ""))
            is_number = isinstance(value, int | float | torch.Size)
            if node.op == "placeholder" or (not is_number and seen & set(node.all_input_nodes)):
                seen.add(node)
        return seen

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

    def before_activation(self, name: str) -> str:
        """Walk back over what maps one tensor to another of its shape without weights."""
        module, inputs = self._module(name), self.nodes[name].all_input_nodes
        has_weights = module is not None and len(module.state_dict()) > 0
        if len(inputs) == 1 and (isinstance(module, PARAMETRIC_ACTIVATIONS) or not has_weights):
            before = self.names.get(inputs[0], "")
            if self.shapes.get(before) == self.shapes[name]:
                return self.before_activation(before)
        return name

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
        inside = module is not None and any(isinstance(x, kinds) for x in module.modules())
        return inside or self.nodes[name].target is F.conv2d

    def _module(self, name: str) -> nn.Module | None:
        node = self.nodes[name]
        return self.net.get_submodule(node.target) if node.op == "call_module" else None


def _height_axis(shape: tuple[int, ...], wider: Any) -> list[int]:
    """The axis of a map's height, 2 or 1; none where it is no map.

    Args:
        shape: the shape for a square image.
        wider: what the node gives for an image that is wider; None where it takes none.
    """
    if wider is not None:
        changed = [i for i in range(4) if wider.shape[i] != shape[i]]
        return [2] if changed == [3] else [1] if changed == [2] else []
    _, a, b, c = shape
    return [2] if b == c else [1] if a == b else []
