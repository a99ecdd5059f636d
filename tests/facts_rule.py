"""How the facts files make their inputs and weights: NumPy's legacy generator, stable for ever."""

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

FACTS = Path(__file__).parent / "facts"


def load(name):
    """A facts file as Python data."""
    return json.loads((FACTS / name).read_text())


def made_input(shape):
    """An input or feature of this shape."""
    values = np.random.RandomState(int(np.prod(shape))).standard_normal(int(np.prod(shape)))
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def made_parameter(name, shape):
    """The weight or buffer that a facts file knows under this name."""
    count = int(np.prod(shape))
    a = np.random.RandomState(crc32(name.encode())).standard_normal(count)
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.long)
    if name.endswith("running_var"):
        a = 0.5 + np.abs(a)
    elif name.endswith(("running_mean", "bias")):
        a = 0.1 * a
    elif len(shape) == 1:
        a = 1 + 0.2 * a
    else:
        a = a / np.sqrt(count / shape[0])
    return torch.from_numpy(a.reshape(shape).astype(np.float32))
