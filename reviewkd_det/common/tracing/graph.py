"""Tracing a classifier: its nodes by name, and modules that run its graph.

A node is named as torchvision's feature extraction names it: the path of its module, or the path of
the module that calls it and the function.
"""

import difflib
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision
from torch import fx, nn
from torchvision.models.feature_extraction import DualGraphModule, NodePathTracer

from reviewkd_det.common.tracing.hooks import keep_inputs

__all__ = ["NotTraceableError", "build_tapped", "build_traced", "find_norms", "trace"]


class NotTraceableError(ValueError):
    """A model whose code does not let itself be traced."""


def trace(model: nn.Module) -> tuple[dict[str, fx.Node], dict[str, fx.Node]]:
    """All nodes by name, in the order of execution, in training and in evaluation.

    Where parts of timm's networks cannot be traced, those that timm lists as such are run as a
    whole: each is one node.

    Raises:
        NotTraceableError: the model cannot be traced all the same.
    """
    was_training = model.training
    # A layer may count its calls, as timm's batch normalisation does: tracing must not count.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        try:
            return _trace_both(model)
        except Exception:
            modules, functions = _not_traceable()
            if not modules:
                raise
            return _trace_both(model, modules, functions)
    except Exception as error:  # whatever a model's own code raises on a traced value
        raise NotTraceableError(
            f"{type(model).__name__} cannot be traced by torch.fx: {error}"
        ) from error
    finally:
        model.train(was_training)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def _trace_both(
    model: nn.Module,
    leaves: Sequence[type[nn.Module]] = (),
    functions: Sequence[Callable[..., Any]] = (),
) -> tuple[dict[str, fx.Node], dict[str, fx.Node]]:
    traced = []
    for mode in (True, False):
        # Torchvision's blocks of convolution, norm and activation are looked into.
        tracer = NodePathTracer(
            autowrap_modules=(math, torchvision.ops),
            autowrap_functions=tuple(functions),
            leaf_modules=list(leaves),
        )
        tracer.trace(model.train(mode))
        traced.append({name: node for node, name in tracer.node_to_qualname.items()})
    return traced[0], traced[1]


def _not_traceable() -> tuple[list[type[nn.Module]], list[Callable[..., Any]]]:
    """What timm registers as not traceable, but for batch norms, which are looked into."""
    timm = sys.modules.get("timm.models")
    if timm is None:
        return [], []
    modules = [x for x in timm.get_notrace_modules() if not issubclass(x, nn.BatchNorm2d)]
    return modules, timm.get_notrace_functions()


class _Traced(DualGraphModule):
    """Copies stay in the mode of what is copied; those of torchvision's begin to train."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Traced":
        copied: _Traced = super().__deepcopy__(memo)
        return copied.train(self.training)


def build_traced(model: nn.Module, train_graph: fx.Graph, eval_graph: fx.Graph) -> DualGraphModule:
    """A module that runs the graphs with the model's own parts, and overwrites no input."""
    for graph in (train_graph, eval_graph):
        for node in graph.nodes:
            if node.kwargs.get("inplace") is True:
                node.update_kwarg("inplace", False)
    net = _Traced(model, train_graph, eval_graph)
    keep_inputs(net)
    return net.train(model.training)


def build_tapped(
    model: nn.Module, names: Sequence[str], key: str, *, with_output: bool = True, start: str = ""
) -> nn.Module:
    """Build a module that runs a model for what some of its nodes give.

    It shares the model's parameters. Layers that overwrite their input stop doing so, else what a
    node gave before such a layer would be lost.

    Args:
        model: maps images (N, 3, H, W) to an output.
        names: names of nodes; a module's name is that of the last node in it.
        key: where the names are from, for error sentences.
        with_output: whether it gives the model's output and a list; else the list alone, and what
            only the output needs is left out.
        start: node whose output is given in the place of images; "" for images.

    Raises:
        NotTraceableError: the model cannot be traced.
        ValueError: it has no node of a name, or reads more than the node that is its start.
    """
    graphs = []
    for nodes in trace(model):
        wanted = [*names, start] if start else names
        missing = [name for name in wanted if not _find_node(nodes, name)]
        if missing:
            near = difflib.get_close_matches(missing[0], nodes, n=3, cutoff=0.0)
            raise ValueError(
                f"{key} must name nodes of {type(model).__name__}; got '{missing[0]}'; "
                f"the nearest are {', '.join(near)}"
            )
        (output,) = [node for node in next(iter(nodes.values())).graph.nodes if node.op == "output"]
        given = [_kept(nodes[_find_node(nodes, name)]) for name in names]
        output.args = ((output.args[0], given),) if with_output else (given,)
        if start:
            _begin_at(nodes[_find_node(nodes, start)], start)
        if start or not with_output:
            _erase_unused(output.graph)
        graphs.append(output.graph)
    return build_traced(model, *graphs)


def find_norms(tapped: nn.Module) -> list[nn.BatchNorm2d | None]:
    """The batch norm that gives each tapped node: the nearest one before it; None without any.

    Where two are as near, as before a sum of a block and its shortcut, the sum's first operand
    counts.

    Args:
        tapped: a module of `build_tapped`; any other has None for each of its `names`.
    """
    if not isinstance(tapped, DualGraphModule):
        return [None] * len(getattr(tapped, "names", ()))
    (output,) = [node for node in tapped.graph.nodes if node.op == "output"]
    return [_nearest_norm(tapped, node) for node in output.args[0][-1]]


def _nearest_norm(net: nn.Module, node: fx.Node) -> nn.BatchNorm2d | None:
    seen, queue = {node}, [node]
    while queue:
        node, *queue = queue
        module = net.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.BatchNorm2d):
            return module
        if isinstance(module, nn.Conv2d | nn.Linear):
            continue  # what is before it has another scale
        for before in node.all_input_nodes:
            if before not in seen:
                seen.add(before)
                queue.append(before)
    return None


def _begin_at(node: fx.Node, name: str) -> None:
    """Let what a node gives be the input of its graph, which has one."""
    graph = node.graph
    (images,) = [x for x in graph.nodes if x.op == "placeholder"]
    with graph.inserting_after(images):
        given = graph.placeholder("map")
    node.replace_all_uses_with(given)
    _erase_unused(graph)
    if images.users:
        raise ValueError(f"what comes after '{name}' must depend on it alone")
    graph.erase_node(images)


def _erase_unused(graph: fx.Graph) -> None:
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def _kept(node: fx.Node) -> fx.Node:
    """The node, of which what overwrites its output, such as `relu_`, gets a copy."""
    targets = [user.target for user in node.users]
    names = [t if isinstance(t, str) else getattr(t, "__name__", "") for t in targets]
    if not any(name.endswith("_") and not name.endswith("__") for name in names):
        return node
    with node.graph.inserting_after(node):
        copy = node.graph.call_function(torch.clone, (node,))
    node.replace_all_uses_with(copy, delete_user_cb=lambda user: user is not copy)
    return node


def _find_node(nodes: dict[str, fx.Node], name: str) -> str:
    """The node of that name, or the last one in the module of that name, or nothing."""
    return (
        name
        if name in nodes
        else next((other for other in reversed(nodes) if other.startswith(f"{name}.")), "")
    )
