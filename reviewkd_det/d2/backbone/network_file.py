"""The weights of a whole network of timm or torchvision, read from a file as data only."""

from typing import Any

from torch import nn

from reviewkd_det.common.weights.choice import Wanted, find_weights
from reviewkd_det.common.weights.reading import read_checkpoint

__all__ = ["NAME", "WEIGHTS", "misfit", "read_network_file"]

NAME, WEIGHTS = "MODEL.TIMM.NAME", "MODEL.TIMM.WEIGHTS"


def read_network_file(network: nn.Module, path: str, entry: str) -> Any:
    """Read the part of a file that holds the network, arrays by name.

    Args:
        network: network of the file's kind; it is left as it is.
        path: the file.
        entry: entry or prefix of the file that is taken; "" finds it.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is no checkpoint, or not of this network alone.
    """
    content: Any = read_checkpoint(path, WEIGHTS)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return find_weights(content, Wanted(shapes, "student", WEIGHTS, entry), path).part.state


def misfit(name: str, weights: str, error: Exception) -> ValueError:
    """What to raise where weights have other names or shapes than the network's."""
    reason = " ".join(str(error).split())
    return ValueError(f"{WEIGHTS} must fit {name}; got '{weights}': {reason}")
