"""The buffers of a network in several processes."""

import torch
from torch import distributed, nn

__all__ = ["share_buffers"]


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Give every process the buffers of the first, which are the ones that are saved.

    Each process takes the statistics of batch norm from its own images. With one process nothing
    happens.

    Args:
        module: network with the same parameters in every process.
    """
    if not distributed.is_initialized():
        return
    for buffer in module.buffers():
        whole = buffer.contiguous()
        distributed.broadcast(whole, 0)
        buffer.copy_(whole)
