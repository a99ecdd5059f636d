"""Checkpoint files of classifiers, read as data only and verified."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reviewkd_det.common import listed, replace_file
from reviewkd_det.common.weights.reading import read_checkpoint

__all__ = ["load_weights", "save_weights"]

# Where training scripts keep the weights, and what wrappers put before their names.
ENTRIES = ("model", "state_dict", "net")
PREFIXES = ("module.", "_orig_mod.")
SHOWN = 3  # names in an error sentence


def load_weights(model: nn.Module, path: str | Path, key: str) -> None:
    """Load a checkpoint into a classifier; every weight must be there and fit.

    Args:
        model: classifier, changed in place.
        path: file of a state dict, or of a dict that holds one as `model`, `state_dict` or `net`.
        key: config key that names the file, for error sentences.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is no checkpoint, or its names, shapes or number of classes differ.
    """
    found = _state_dict(read_checkpoint(path, key))
    if not found:
        raise ValueError(f"{key} must hold weights by name; got '{path}' with none")
    _check(model, found, path, key)
    model.load_state_dict(found)


def save_weights(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Write a plain state dict, on the CPU."""
    plain = {name: value.detach().cpu() for name, value in state_dict.items()}
    replace_file(path, lambda part: torch.save(plain, part))


def _state_dict(content: Any) -> dict[str, Tensor]:
    while isinstance(content, Mapping) and (
        entry := next((name for name in ENTRIES if isinstance(content.get(name), Mapping)), None)
    ):
        content = content[entry]
    if not isinstance(content, Mapping):
        return {}
    found = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    for prefix in PREFIXES * 2:  # wrapped in either order
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _check(model: nn.Module, found: Mapping[str, Tensor], path: str | Path, key: str) -> None:
    wanted = model.state_dict()
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
        raise ValueError(f"{key} must hold the weights of {kind}; '{path}' {'; it '.join(parts)}")
    *_, last = (name for name in wanted if name.endswith("weight"))
    head = {last, f"{last.removesuffix('weight')}bias"}
    ours, theirs = next(iter(sizes.values()), ((), ()))
    if set(sizes) <= head and len(ours) == len(theirs) and ours[:1] != theirs[:1]:
        raise ValueError(
            f"{key} must be for {ours[0]} classes, as the data has; got '{path}' for {theirs[0]}"
        )
    if sizes:
        wrong = [f"{name} {got} instead of {want}" for name, (want, got) in sizes.items()]
        raise ValueError(
            f"{key} must hold the weights of {kind}; '{path}' has {listed(wrong, SHOWN)}"
        )
