"""Checkpoint files of others, read as data only: nothing that a file names is called.

torch makes tensors and what `DATA` lists; everything else in a file is refused. A file that ends
in `.safetensors` is read by the package of that name, which knows nothing but tensors.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from reviewkd_det.common.weights.plain_pickle import PLAIN_GLOBALS, refusal_reason

__all__ = ["read_checkpoint", "read_torch_file"]

Content = TypeVar("Content")
REMEDY = "; save the network's state_dict() alone, with the program that made the file"
# What published checkpoints hold beside tensors: settings, and NumPy's arrays and numbers.
DATA: list[Any] = [argparse.Namespace, *((made, name) for name, made in PLAIN_GLOBALS.items())]


def read_torch_file(path: str | Path, *, mmap: bool = False) -> Any:
    """Read what torch.save or safetensors wrote, on the CPU; any file but of data alone raises.

    Args:
        path: file of any origin.
        mmap: whether tensors are read from the file when they are used.
    """
    if Path(path).suffix == ".safetensors":
        return _read_safetensors(path)
    with torch.serialization.safe_globals(DATA):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def _read_safetensors(path: str | Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(
            f"safetensors must be installed for '{path}'; got {error}; pip install safetensors"
        ) from error
    return load_file(path)


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
        ImportError: the file's format needs a package that is not installed.
        ValueError: the file is broken, of another format, or holds more than data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{key} must name a file that exists; got '{path}'")
    try:
        return read(path)
    except ImportError:
        raise
    except Exception as error:  # whatever an unpickler raises on bytes that are none of its own
        reason = refusal_reason(error)
        remedy = REMEDY if "nsupported" in reason else ""
        raise ValueError(
            f"{key} must be a checkpoint that can be read; got '{path}': {reason}{remedy}"
        ) from error
