"""The stages of any traceable classifier, found by one dummy forward.

Shapes: N images, C channels, H x W cells of one level, K classes. Level lists run from high to low
resolution. A node is named as torchvision's feature extraction names it: the path of its module,
or the path of the module that calls it and the function.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classification.reading.tracing import build_traced, trace

__all__ = ["find_taps"]

# Layers with parameters that are activations all the same.
PARAMETRIC_ACTIVATIONS = (nn.PReLU, nn.RReLU)


def find_taps(
    model: nn.Module, image_size: int, *, before_activation: bool = True, pooled: bool = True
) -> tuple[str, ...]:
    """Find a classifier's stages.

    A network of ours says where they are. In any other they are the last map of each resolution,
    found by one dummy forward. What a block computes before it lowers the resolution belongs to
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
            f"model must have square maps (N, C, H, W) of at least two resolutions; got "
            f"{len(stages)} in {type(model).__name__}; name its nodes as taps"
        )
    names = [nodes.before_activation(name) for name in stages] if before_activation else stages
    return (*names, *nodes.pooled_vectors(nodes.shapes[stages[-1]][1])) if pooled else tuple(names)


class _TracedNodes:
    """The graph of a classifier, and what each node gives for one square image."""

    def __init__(self, model: nn.Module, image_size: int) -> None:
        _, self.nodes = trace(model)
        self.names = {node: name for name, node in self.nodes.items()}
        graph = next(iter(self.names)).graph
        (output,) = [node for node in graph.nodes if node.op == "output"]
        output.args = (dict(self.nodes),)
        self.net = build_traced(model, graph, graph).eval()
        device = next(model.parameters()).device
        with torch.no_grad():
            values = self.net(torch.zeros(1, 3, image_size, image_size, device=device))
        self.net.train(model.training)  # the parts are shared with the model
        # In the order of execution.
        self.shapes = {n: tuple(v.shape) for n, v in values.items() if isinstance(v, Tensor)}
        # Maps of one cell are the inner parts of channel attention, others than of the one image
        # are standardised weights.
        self.sizes = {
            name: shape[2]
            for name, shape in self.shapes.items()
            if len(shape) == 4 and shape[0] == 1 and shape[2] == shape[3] > 1
        }

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
        inside = module is not None and any(isinstance(x, nn.Conv2d) for x in module.modules())
        return inside or self.nodes[name].target is F.conv2d

    def _module(self, name: str) -> nn.Module | None:
        node = self.nodes[name]
        return self.net.get_submodule(node.target) if node.op == "call_module" else None
