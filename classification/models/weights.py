"""Checkpoint files of classifiers, read as data only and verified."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from reviewkd_det.common import listed, replace_file
from reviewkd_det.common.weights.choice import FoundWeights, Wanted, find_weights
from reviewkd_det.common.weights.reading import read_checkpoint

__all__ = ["classes_of_file", "load_weights", "save_weights"]

SHOWN = 3  # names in an error sentence


def load_weights(
    model: nn.Module, path: str | Path, key: str, *, role: str = "student", entry: str = ""
) -> None:
    """Load a checkpoint into a classifier; every weight must be there and fit.

    Args:
        model: classifier, changed in place.
        path: file of a state dict, plain or wrapped as training programs do.
        key: config key that names the file, for error sentences.
        role: whose weights are taken where the file tells them apart: "student" or "teacher".
        entry: entry or prefix of the file that is taken; "" finds it.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is no checkpoint, or its names, shapes or number of classes differ.
    """
    found = find_weights(read_checkpoint(path, key), _wanted(model, role, key, entry), str(path))
    _check(model, found, path, key)
    state = found.part.state
    model.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})


def classes_of_file(
    model: nn.Module, path: str | Path, key: str, classes: int, *, role: str, entry: str = ""
) -> int:
    """How many classes a checkpoint is for, where nothing but the classifier differs.

    Args:
        model: classifier of the file's kind, with or without values.
        path: file of a state dict, as for `load_weights`.
        key: config key that names the file, for error sentences.
        classes: number of classes of `model`, and the answer where more differs.
        role: "student" or "teacher".
        entry: entry or prefix of the file that is taken; "" finds it.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is no checkpoint.
    """
    wanted = _wanted(model, role, key, entry)
    part = find_weights(read_checkpoint(path, key), wanted, str(path), log=False).part
    shapes = {name: tuple(value.shape) for name, value in part.state.items()}
    differing = {name for name in shapes if shapes[name] != wanted.shapes.get(name)}
    weight, bias = _head(model)
    if not differing or differing - {weight, bias} or wanted.shapes[weight][0] != classes:
        return classes
    return int(shapes[weight][0]) if weight in shapes else classes


def save_weights(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Write a plain state dict, on the CPU."""
    plain = {name: value.detach().cpu() for name, value in state_dict.items()}
    replace_file(path, lambda part: torch.save(plain, part))


def _wanted(model: nn.Module, role: str, key: str, entry: str) -> Wanted:
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return Wanted(shapes, role, key, entry)


def _head(model: nn.Module) -> tuple[str, str]:
    """The names of the classifier's last weight and bias."""
    *_, last = (name for name in model.state_dict() if name.endswith("weight"))
    return last, f"{last.removesuffix('weight')}bias"


def _check(model: nn.Module, read: FoundWeights, path: str | Path, key: str) -> None:
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
