"""Checkpoint files of classifiers, read as data only and verified."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reviewkd_det.common import listed, replace_file
from reviewkd_det.common.weights.choice import FoundWeights, Wanted, find_weights
from reviewkd_det.common.weights.reading import read_checkpoint

__all__ = ["ReadWeights", "count_classes", "fill", "load_weights", "read_weights", "save_weights"]

SHOWN = 3  # names in an error sentence


class ReadWeights(NamedTuple):
    """Weights of a checkpoint file, not yet compared with a classifier's.

    Args:
        found: the part of the file that was taken.
        path: the file.
        key: config key that names the file, for error sentences.
    """

    found: FoundWeights
    path: str
    key: str


def read_weights(
    model: nn.Module, path: str | Path, key: str, *, role: str = "student", entry: str = ""
) -> ReadWeights:
    """Read a checkpoint and find a classifier's weights in it.

    Args:
        model: classifier that will take them.
        path: file of a state dict, plain or wrapped as training programs do.
        key: config key that names the file, for error sentences.
        role: whose weights are taken where the file tells them apart: "student" or "teacher".
        entry: entry or prefix of the file that is taken; "" finds it.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is no checkpoint, or does not say which weights are meant.
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wanted = Wanted(shapes, role, key, entry)
    return ReadWeights(find_weights(read_checkpoint(path, key), wanted, str(path)), str(path), key)


def fill(model: nn.Module, weights: ReadWeights) -> None:
    """Load read weights into a classifier; every weight must be there and fit.

    Raises:
        ValueError: names, shapes or the number of classes differ; the classifier stays as it was.
    """
    _check(model, weights)
    state = weights.found.part.state
    model.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})


def load_weights(
    model: nn.Module, path: str | Path, key: str, *, role: str = "student", entry: str = ""
) -> None:
    """Load a checkpoint into a classifier: `read_weights`, then `fill`."""
    fill(model, read_weights(model, path, key, role=role, entry=entry))


def count_classes(model: nn.Module, weights: ReadWeights | None = None) -> int:
    """The number of classes of a classifier, or of weights that are read for its kind."""
    name, own = _head(model)[0], model.state_dict()
    return len((weights.found.part.state if weights else own).get(name, own[name]))


def save_weights(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Write a plain state dict, on the CPU."""
    plain = {name: value.detach().cpu() for name, value in state_dict.items()}
    replace_file(path, lambda part: torch.save(plain, part))


def _head(model: nn.Module) -> tuple[str, str]:
    """The names of the classifier's last weight and bias."""
    *_, last = (name for name in model.state_dict() if name.endswith("weight"))
    return last, f"{last.removesuffix('weight')}bias"


def _check(model: nn.Module, weights: ReadWeights) -> None:
    read, path, key = weights
    wanted, found = model.state_dict(), read.part.state
    sizes = {
        name: (tuple(value.shape), tuple(found[name].shape))
        for name, value in wanted.items()
        if name in found and value.shape != found[name].shape
    }
    kind = type(model).__name__
    if missing := [name for name in wanted if name not in found]:
        # Checkpoints of old torch versions do not count batches.
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    extra = [name for name in found if name not in wanted]
    if missing or extra:
        parts = [
            f"{what} {listed(names, SHOWN)}"
            for what, names in (("lacks", missing), ("has besides", extra))
            if names
        ]
        raise ValueError(
            f"{key} must hold the weights of {kind}; '{path}' {'; it '.join(parts)}{read.names}"
        )
    ours, theirs = next(iter(sizes.values()), ((), ()))
    if set(sizes) <= {*_head(model)} and len(ours) == len(theirs) and ours[:1] != theirs[:1]:
        raise ValueError(
            f"{key} must be for {ours[0]} classes, as the data has; got '{path}' for {theirs[0]}"
        )
    if sizes:
        wrong = [f"{name} {got} instead of {want}" for name, (want, got) in sizes.items()]
        raise ValueError(
            f"{key} must hold the weights of {kind}; '{path}' has "
            f"{listed(wrong, SHOWN)}{read.taken}"
        )
