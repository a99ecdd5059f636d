"""The random states of a process, as plain data that a checkpoint may hold."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["random_state", "restore_random_state"]


def random_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and PyTorch's generators, on the CPU and the current GPU."""
    kind, keys, *rest = np.random.get_state()  # (str, (624,) uint32, ...)
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.tensor(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(states: Sequence[dict[str, Any]], rank: int) -> None:
    """Restore the state of one process.

    A GPU's is left out where there is none. With more processes than states this one keeps its own.

    Args:
        states: what `random_state` returned in each process.
        rank: number of this process.
    """
    if rank >= len(states):
        return
    state = states[rank]
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
