"""Checkpoint files of others, read as data only: nothing that a file names is called.

torch makes tensors and what `DATA` lists; everything else in a file is refused.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from reviewkd_det.common.weights.plain_pickle import PLAIN_GLOBALS, refusal_reason

__all__ = ["read_checkpoint", "read_torch_file"]

Content = TypeVar("Content")
# What published checkpoints hold beside tensors: settings, and NumPy's arrays and numbers.
DATA: list[Any] = [argparse.Namespace, *((made, name) for name, made in PLAIN_GLOBALS.items())]


def read_torch_file(path: str | Path, *, mmap: bool = False) -> Any:
    """Read what torch.save wrote, on the CPU; a file that holds anything but data raises.

    Args:
        path: file of any origin.
        mmap: whether tensors are read from the file when they are used.
    """
    with torch.serialization.safe_globals(DATA):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def read_checkpoint(
    path: str | Path, key: str, read: Callable[[str | Path], Content] = read_torch_file
) -> Content:
    """Read a checkpoint file, or say why it cannot be read.

    Args:
        path: file, of any origin.
        key: config key that names the file, for the error sentence.
        read: function that reads the file's format.

    Returns:
        What `read` returns.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is broken, of another format, or holds more than data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{key} must name a file that exists; got '{path}'")
    try:
        return read(path)
    except Exception as error:  # whatever an unpickler raises on bytes that are none of its own
        raise ValueError(
            f"{key} must be a checkpoint that can be read; got '{path}': {refusal_reason(error)}"
        ) from error
