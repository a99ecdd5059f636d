"""Checkpoints that are verified when they are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from reviewkd_det.common import listed
from reviewkd_det.common.weights.choice import FoundWeights, Wanted, find_weights
from reviewkd_det.common.weights.parts import list_entries
from reviewkd_det.common.weights.plain_pickle import read_plain_pickle
from reviewkd_det.common.weights.reading import read_checkpoint, read_torch_file
from reviewkd_det.d2.compat import forget_url, url_query
from reviewkd_det.d2.weights.torchvision import (
    is_torchvision_mobilenet,
    is_torchvision_resnet,
    register_torchvision,
    resnet_names,
)

__all__ = ["VerifiedCheckpointer"]


class VerifiedCheckpointer(DetectionCheckpointer):
    """Load weights in any of Detectron2's formats, or wrapped as other programs do.

    Every weight of the model must be in the file.

    Args:
        model: module that takes the weights.
        save_dir: folder of what is saved; "" never saves.
        key: config key that names the file, for error sentences.
        role: whose weights are taken of a file that tells them apart: "student" or "teacher".
        entry: entry or prefix of the file that is taken; "" finds it.
        checkpointables: objects with `state_dict` that are saved beside the model.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        key: str,
        role: str = "student",
        entry: str = "",
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        register_torchvision()
        # The weights of a `DistilledDetector` are its student's.
        self.model: Any = getattr(self.model, "student", self.model)
        self.key, self.role, self.entry = key, role, entry
        self.loaded = ""  # the path, as it was given
        self.found: FoundWeights | None = None  # what was loaded
        self.author = ""  # who made the file, as far as it says

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint as Detectron2 does, and verify it.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: no file is named, it cannot be read, or weights are missing or of another
                shape.
        """
        self.loaded = path
        if not path:
            return self._load_nothing()
        try:
            return super().load(self._local_path(path), *args, **kwargs)
        finally:
            forget_url(self)

    def _load_nothing(self) -> dict[str, Any]:
        raise ValueError(f"{self.key} must name a checkpoint; got ''")

    def _local_path(self, path: str) -> str:
        name, question_mark, query = path.partition("?")
        try:
            local_path = self.path_manager.get_local_path(name)
        except OSError as error:
            raise FileNotFoundError(
                f"{self.key} must be within reach; got '{path}': {error}"
            ) from error
        if not self.path_manager.isfile(local_path):
            raise FileNotFoundError(f"{self.key} must name a file that exists; got '{path}'")
        return local_path + question_mark + query

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = read_checkpoint(filename, self.key, self._read_format)
        shapes = {name: tuple(value.shape) for name, value in self.model.state_dict().items()}
        wanted = Wanted(shapes, self.role, self.key, self.entry)
        self.found = find_weights(checkpoint, wanted, filename)
        state = {k: _tensor(v) for k, v in self.found.part.state.items()}
        self.author = str(checkpoint.get("__author__", ""))
        if is_torchvision_resnet(state):
            self.author = "torchvision"
            return {"model": resnet_names(state), "matching_heuristics": True}
        if is_torchvision_mobilenet(state):  # our backbone has torchvision's names
            self.author = "torchvision"
            return {"model": state, "matching_heuristics": True}
        return {**checkpoint, "model": state}

    def _read_format(self, path: str | Path) -> dict[str, Any]:
        """Read what Detectron2's `_load_file` reads, which unpickles anything, as data only."""
        filename, heuristics = str(path), {}
        if filename.endswith(".pkl"):
            content = read_plain_pickle(filename)
            blobs = content.get("blobs", content)
            if not {"__author__", "model"} & content.keys() and _is_caffe2(blobs):
                content = {"model": {k: v for k, v in blobs.items() if "_momentum" not in k}}
                heuristics = {"__author__": "Caffe2", "matching_heuristics": True}
        else:
            content = read_torch_file(filename)
        if filename.endswith(".pyth"):
            heuristics = {"__author__": "pycls", "matching_heuristics": True}
        if not list_entries(content):
            raise ValueError("it must hold weights, which are arrays by name; got none")
        query = parse_qs(url_query(self))
        if query.pop("matching_heuristics", []) == ["True"]:
            heuristics["matching_heuristics"] = True
        if query:
            raise ValueError(f"only ?matching_heuristics=True may follow a file; got {query}")
        return {**content, **heuristics}

    @property
    def found_names(self) -> str:
        """The names of the file that was read, at the end of a sentence."""
        return "" if self.found is None else self.found.names

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if incompatible.incorrect_shapes:
            shapes = [f"{k} {file} for {model}" for k, file, model in incompatible.incorrect_shapes]
            taken = "" if self.found is None else self.found.taken
            raise ValueError(
                f"{self.key} must hold weights of the model's shapes; got {listed(shapes)}{taken}"
                f"{self._config_beside()}"
            )
        missing = [k for k in incompatible.missing_keys if not k.endswith("num_batches_tracked")]
        if missing:
            raise ValueError(
                f"{self.key} must hold every weight of the model; "
                f"missing {len(missing)}: {listed(missing)}{self.found_names}"
            )
        self._warn_of_unused(incompatible.unexpected_keys)

    def _config_beside(self) -> str:
        """Where the weights are of a run, its config, at the end of a sentence."""
        config = Path(self.loaded).with_name("config.yaml")
        return f"; the config of its run is '{config}'" if config.is_file() else ""

    def _warn_of_unused(self, names: Sequence[str]) -> None:
        """Warn of weights under the names of the model's own parts that it has not."""
        parts = {name for name, _ in self.model.named_children()}
        unused = [name for name in names if name.partition(".")[0] in parts]
        if unused:
            self.logger.warning(
                "%s holds %d weights that the model does not have: %s",
                self.key,
                len(unused),
                listed(unused),
            )


def _is_caffe2(blobs: Mapping[str, Any]) -> bool:
    """Whether these are arrays under Caffe2's names, which have no dots."""
    return any(isinstance(blob, np.ndarray) and "." not in name for name, blob in blobs.items())


def _tensor(value: Any) -> torch.Tensor:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
