"""How much a module computes, found out without computing.

It needs torch, which importing `reviewkd_det.common` does not.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_multiply_adds", "estimate"]


def estimate(cost: Callable[..., float | None], *arguments: Any) -> float | None:
    """Call what counts a cost; None where a network cannot be counted.

    A network may be anyone's and fail at tensors without values in any way; no run shall fail of
    an estimate.
    """
    try:
        return cost(*arguments)
    except Exception as error:
        logging.getLogger(__name__).debug("Multiply-adds cannot be counted: %s", error)
        return None


def count_multiply_adds(module: nn.Module, *inputs: Any, backward: bool) -> tuple[int, Any]:
    """Count the multiply-adds of a call: of its convolutions, matrix products and attentions.

    What is called is a copy whose parameters and buffers have shapes but no values, torch's meta
    tensors: nothing is computed and nothing of the module, its statistics included, is changed.

    Args:
        module: module that is called, in its present mode.
        inputs: arguments of the call, in which all tensors are meta tensors.
        backward: whether the gradients of parameters and inputs that learn are counted as well.

    Returns:
        The multiply-adds, and the call's output, of meta tensors.

    Raises:
        Exception: of any kind, where the module needs values.
    """
    shapes = {id(x): _without_values(x) for x in chain(module.parameters(), module.buffers())}
    stand_in = copy.deepcopy(module, shapes)
    with (
        torch.random.fork_rng(devices=[]),
        torch.set_grad_enabled(backward),
        FlopCounterMode(display=False) as counter,
    ):
        output = stand_in(*inputs)
        if backward:
            torch.stack([x.sum() for x in _tensors(output) if x.requires_grad]).sum().backward()
    return counter.get_total_flops() // 2, output


def _without_values(tensor: Tensor) -> Tensor:
    shape = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(shape, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shape


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from chain.from_iterable(map(_tensors, output.values()))
    elif isinstance(output, list | tuple):
        yield from chain.from_iterable(map(_tensors, output))
