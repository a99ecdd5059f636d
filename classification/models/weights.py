"""Checkpoint files of classifiers, read as data only and verified."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reviewkd_det.common import listed, replace_file
from reviewkd_det.common.weights.choice import FoundWeights, Wanted, find_weights
from reviewkd_det.common.weights.reading import read_checkpoint

__all__ = ["FileOfWeights", "count_classes", "load_weights", "save_weights"]

SHOWN = 3  # names in an error sentence


class FileOfWeights(NamedTuple):
    """A checkpoint file of a classifier.

    Args:
        path: file of a state dict, plain or wrapped as training programs do.
        key: config key that names the file, for error sentences.
        role: whose weights are taken where the file tells them apart: "student" or "teacher".
        entry: entry or prefix of the file that is taken; "" finds it.
    """

    path: str | Path
    key: str
    role: str = "student"
    entry: str = ""


def load_weights(model: nn.Module, file: FileOfWeights) -> None:
    """Load a checkpoint into a classifier; every weight must be there and fit.

    Args:
        model: classifier, changed in place.
        file: the checkpoint.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is no checkpoint, or its names, shapes or number of classes differ.
    """
    found = _find(model, file)
    _check(model, found, file)
    model.load_state_dict(_tensors(found))


def count_classes(model: nn.Module, file: FileOfWeights) -> int:
    """Count the classes of a checkpoint, which may be others than the network's.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is no checkpoint.
    """
    (*_, last), found = _head(model), _find(model, file).part.state
    return len(found[last] if last in found else model.state_dict()[last])


def save_weights(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Write a plain state dict, on the CPU."""
    plain = {name: value.detach().cpu() for name, value in state_dict.items()}
    replace_file(path, lambda part: torch.save(plain, part))


def _find(model: nn.Module, file: FileOfWeights) -> FoundWeights:
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wanted = Wanted(shapes, file.role, file.key, file.entry)
    return find_weights(read_checkpoint(file.path, file.key), wanted, str(file.path))


def _tensors(found: FoundWeights) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in found.part.state.items()}


def _head(model: nn.Module) -> tuple[str, str]:
    """The names of the classifier's bias and weight."""
    *_, last = (name for name in model.state_dict() if name.endswith("weight"))
    return f"{last.removesuffix('weight')}bias", last


def _check(model: nn.Module, weights: FoundWeights, file: FileOfWeights) -> None:
    wanted, found, (path, key) = model.state_dict(), weights.part.state, file[:2]
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
            f"{key} must hold the weights of {kind}; '{path}' {'; it '.join(parts)}; "
            f"taken was {weights.part.label} of {weights.inventory}"
        )
    ours, theirs = next(iter(sizes.values()), ((), ()))
    if set(sizes) <= {*_head(model)} and len(ours) == len(theirs) and ours[:1] != theirs[:1]:
        raise ValueError(
            f"{key} must be for {ours[0]} classes, as the data has; got '{path}' for {theirs[0]}"
        )
    if sizes:
        wrong = [f"{name} {got} instead of {want}" for name, (want, got) in sizes.items()]
        raise ValueError(
            f"{key} must hold the weights of {kind}; '{path}' has {listed(wrong, SHOWN)}; "
            f"taken was {weights.part.label} of {weights.inventory}"
        )
