"""Feature maps of any traceable classifier, tapped by node name.

Shapes: N images, C channels, H x W cells of one level, K classes. Level lists run from high to low
resolution. A node is named as torchvision's feature extraction names it: the path of its module,
or the path of the module that calls it and the function.
"""

import difflib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import DualGraphModule, NodePathTracer

__all__ = ["Outputs", "TappedModel", "find_taps"]

# Layers with parameters that are activations all the same.
PARAMETRIC_ACTIVATIONS = (nn.PReLU, nn.RReLU)


class Outputs(NamedTuple):
    """What a classifier gives for N images."""

    logits: Tensor  # (N, K)
    levels: list[Tensor]  # (N, C, H, W) each


class TappedModel(nn.Module):
    """Run a classifier once for its logits and the maps of some of its nodes.

    The classifier is traced, not edited, and shares its parameters with the traced one. Its layers
    that overwrite their input stop doing so, else a map before such a layer would be lost.

    Args:
        model: maps images (N, 3, H, W) to logits (N, K).
        names: nodes whose outputs are the levels; a vector (N, C) becomes a level of one cell.
            None are needed, and then nothing is traced.
        key: where the names are from, for error sentences.

    Raises:
        ValueError: the model cannot be traced, or has no node of a name.
    """

    def __init__(self, model: nn.Module, names: Sequence[str] = (), key: str = "taps") -> None:
        super().__init__()
        self.names = tuple(names)
        if not names:
            self.net = model
            return
        graphs = []
        for nodes in _trace(model):
            missing = [name for name in names if not _find(nodes, name)]
            if missing:
                near = difflib.get_close_matches(missing[0], nodes, n=3, cutoff=0.0)
                raise ValueError(
                    f"{key} must name nodes of {type(model).__name__}; got '{missing[0]}'; "
                    f"the nearest are {', '.join(near)}"
                )
            (output,) = [
                node for node in next(iter(nodes.values())).graph.nodes if node.op == "output"
            ]
            levels = [_kept(nodes[_find(nodes, name)]) for name in names]
            output.args = ((output.args[0], levels),)
            graphs.append(output.graph)
        self.net = _build(model, *graphs)

    def forward(self, images: Tensor) -> Outputs:
        """Classify.

        Args:
            images: (N, 3, H, W), normalised.

        Raises:
            ValueError: a tapped node gives neither a map nor a vector.
        """
        if not self.names:
            return Outputs(self.net(images), [])
        logits, levels = self.net(images)
        named = zip(self.names, levels, strict=True)
        return Outputs(logits, [_as_map(level, name) for name, level in named])

    @torch.no_grad()
    def level_shapes(self, image_size: int) -> list[tuple[int, int, int]]:
        """(C, H, W) of each level for images of that many pixels a side: one dummy forward."""
        was_training = self.training
        device = next(self.parameters()).device
        levels = self.eval()(torch.zeros(1, 3, image_size, image_size, device=device)).levels
        self.train(was_training)
        return [(level.shape[1], level.shape[2], level.shape[3]) for level in levels]


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
        _, self.nodes = _trace(model)
        self.names = {node: name for name, node in self.nodes.items()}
        graph = next(iter(self.names)).graph
        (output,) = [node for node in graph.nodes if node.op == "output"]
        output.args = (dict(self.nodes),)
        self.net = _build(model, graph, graph).eval()
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
        return isinstance(self._module(name), nn.Conv2d) or self.nodes[name].target is F.conv2d

    def _module(self, name: str) -> nn.Module | None:
        node = self.nodes[name]
        return self.net.get_submodule(node.target) if node.op == "call_module" else None


def _trace(model: nn.Module) -> tuple[dict[str, fx.Node], dict[str, fx.Node]]:
    """All nodes by name, in the order of execution, in training and in evaluation."""
    was_training = model.training
    # A layer may count its calls, as timm's batch normalisation does: tracing must not count.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    traced = []
    try:
        for mode in (True, False):
            # Torchvision's blocks of convolution, norm and activation are looked into.
            tracer = NodePathTracer(autowrap_modules=(math, torchvision.ops))
            tracer.trace(model.train(mode))
            traced.append({name: node for node, name in tracer.node_to_qualname.items()})
    except Exception as error:  # whatever a model's own code raises on a traced value
        raise ValueError(
            f"model must be traceable by torch.fx to be tapped; got {type(model).__name__}: {error}"
        ) from error
    finally:
        model.train(was_training)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return traced[0], traced[1]


def _build(model: nn.Module, train_graph: fx.Graph, eval_graph: fx.Graph) -> DualGraphModule:
    """A module that runs the graphs with the model's own parts, and overwrites no input."""
    for graph in (train_graph, eval_graph):
        for node in graph.nodes:
            if node.kwargs.get("inplace") is True:
                node.update_kwarg("inplace", False)
    net = DualGraphModule(model, train_graph, eval_graph)
    for module in net.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False
    return net.train(model.training)


def _kept(node: fx.Node) -> fx.Node:
    """The node, or where a method or function such as `relu_` overwrites its output, a copy."""
    targets = [user.target for user in node.users]
    names = [t if isinstance(t, str) else getattr(t, "__name__", "") for t in targets]
    if not any(name.endswith("_") and not name.endswith("__") for name in names):
        return node
    with node.graph.inserting_after(node):
        return node.graph.call_function(torch.clone, (node,))


def _find(nodes: dict[str, fx.Node], name: str) -> str:
    """The node of that name, or the last one in the module of that name, or nothing."""
    return (
        name
        if name in nodes
        else next((other for other in reversed(nodes) if other.startswith(f"{name}.")), "")
    )


def _as_map(output: Any, name: str) -> Tensor:
    shape = tuple(getattr(output, "shape", ()))
    if len(shape) not in (2, 4):
        raise ValueError(
            f"tap must give a map (N, C, H, W) or a vector (N, C); got {shape} from '{name}'"
        )
    return output if len(shape) == 4 else output[:, :, None, None]
