"""What a real call computes, as torch counts it."""

import torch
from torch.utils.flop_counter import FlopCounterMode


def work(call, *, learns):
    """Floating-point operations of a call that gives tensors, and of their gradients."""
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(learns):
        outputs = call()
        if learns:
            sum(x.sum() for x in outputs).backward()
    return counter.get_total_flops()
