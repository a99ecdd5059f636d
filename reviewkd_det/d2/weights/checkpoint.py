"""Checkpoints that are verified when they are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from reviewkd_det.common import listed
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

TEACHER = "teacher."


class VerifiedCheckpointer(DetectionCheckpointer):
    """Load weights in any of Detectron2's formats; every weight of the model must be in the file.

    Args:
        model: module that takes the weights.
        save_dir: folder of what is saved; "" never saves.
        key: config key that names the file, for error sentences.
        prefix: part that is taken of a file with a student's weights and, under `teacher.`, a
            teacher's, as the original project publishes them: "" or "teacher.".
        checkpointables: objects with `state_dict` that are saved beside the model.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        key: str,
        prefix: str = "",
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        register_torchvision()
        # The weights of a `DistilledDetector` are its student's.
        self.model: Any = getattr(self.model, "student", self.model)
        self.key = key
        self.prefix = prefix

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint as Detectron2 does, and verify it.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: no file is named, it cannot be read, or weights are missing or of another
                shape.
        """
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
        checkpoint = read_checkpoint(filename, self.key, self._read_file)
        checkpoint["model"] = _own_part(checkpoint["model"], self.prefix)
        if is_torchvision_resnet(checkpoint["model"]):
            return {"model": resnet_names(checkpoint["model"]), "matching_heuristics": True}
        if is_torchvision_mobilenet(checkpoint["model"]):  # our backbone has torchvision's names
            return {"model": checkpoint["model"], "matching_heuristics": True}
        return checkpoint

    def _read_file(self, path: str | Path) -> dict[str, Any]:
        checkpoint = self._read_format(str(path))
        return {**checkpoint, "model": _tensors(checkpoint["model"])}

    def _read_format(self, filename: str) -> dict[str, Any]:
        """Read what Detectron2's `_load_file` reads, which unpickles anything, as data only."""
        if filename.endswith(".pkl"):
            content = read_plain_pickle(filename)
            if "model" in content and "__author__" in content:
                return dict(content)
            blobs = content.get("blobs", content).items()  # of Caffe2
            state = {k: v for k, v in blobs if not k.endswith("_momentum")}
            return {"model": state, "__author__": "Caffe2", "matching_heuristics": True}
        content = read_torch_file(filename)
        if filename.endswith(".pyth"):  # of pycls
            old = content["model_state"].items()
            state = {k: v for k, v in old if not k.endswith("num_batches_tracked")}
            return {"model": state, "__author__": "pycls", "matching_heuristics": True}
        query = parse_qs(url_query(self))
        content = content if "model" in content else {"model": content}
        if query.pop("matching_heuristics", []) == ["True"]:
            content["matching_heuristics"] = True
        if query:
            raise ValueError(f"only ?matching_heuristics=True may follow a file; got {query}")
        return dict(content)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if incompatible.incorrect_shapes:
            shapes = [f"{k} {file} for {model}" for k, file, model in incompatible.incorrect_shapes]
            raise ValueError(
                f"{self.key} must hold weights of the model's shapes; got {listed(shapes)}"
            )
        missing = [k for k in incompatible.missing_keys if not k.endswith("num_batches_tracked")]
        if missing:
            raise ValueError(
                f"{self.key} must hold every weight of the model; "
                f"missing {len(missing)}: {listed(missing)}"
            )


def _tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Every weight as a tensor; the files of NumPy's arrays included."""
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor | np.ndarray):
            kind = type(value).__name__
            raise ValueError(f"weights must be arrays by name; got a {kind} as {name!r:.80}")
    return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in state.items()}


def _own_part(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    theirs = {k.removeprefix(TEACHER): v for k, v in state.items() if k.startswith(TEACHER)}
    if prefix == TEACHER and theirs:
        return theirs
    return {k: v for k, v in state.items() if not k.startswith(TEACHER)}
