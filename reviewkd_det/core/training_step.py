"""What tells a training step from a pass that only looks at a model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["is_training_step", "without_traces"]


def is_training_step(module: nn.Module) -> bool:
    """Whether a call of a module is a step of its training: in training mode and with gradients.

    A validation loss, precise batch statistics or a probe run in training mode under
    `torch.no_grad()`; those are none.
    """
    return module.training and torch.is_grad_enabled()


@contextmanager
def without_traces(module: nn.Module) -> Iterator[None]:
    """Put the buffers of a module back after a block that is no training step.

    So running statistics and memories of earlier batches stay as they were. State that is no
    buffer is left to the module itself, which asks `is_training_step`.

    Args:
        module: module that the block calls.
    """
    if is_training_step(module):
        yield
        return
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
