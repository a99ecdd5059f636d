"""Checkpoints that are verified when they are read."""

import codecs
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from reviewkd_det.d2.torchvision_weights import (
    is_torchvision_mobilenet,
    is_torchvision_resnet,
    resnet_names,
)

__all__ = ["StudentCheckpointer", "VerifiedCheckpointer"]

TEACHER = "teacher."
# What torch must be told is safe, so that a .pth file may hold NumPy's arrays and numbers; NumPy 2
# has renamed the module of the functions that make them.
_MAKERS: list[Any] = [np.zeros(1).__reduce__()[0], np.float32(0).__reduce__()[0]]
NUMPY: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    *((make, f"numpy.{core}.multiarray.{make.__name__}")
      for make in _MAKERS for core in ("core", "_core")),
    codecs.encode,
]  # fmt: skip


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class VerifiedCheckpointer(DetectionCheckpointer):
    """Load weights in any of Detectron2's formats; every weight of the model must be in the file.

    Args:
        model: the module to fill.
        save_dir: folder to save to; "" never saves.
        key: the config key that names the file, for error sentences.
        prefix: which part of a file to take that holds a student's weights and, under
            `teacher.`, a teacher's, as the original project publishes them: "" or "teacher.".
        checkpointables: other objects with `state_dict` saved beside the model.
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
            self._parsed_url_during_load = None  # upstream leaves it set when loading fails

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
        try:
            with torch.serialization.safe_globals(NUMPY):
                checkpoint = super()._load_file(filename)
            checkpoint["model"].items()
        except Exception as error:  # a broken pickle can raise anything
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"{self.key} must be a checkpoint that can be read; got '{filename}': {reason}"
            ) from error
        checkpoint["model"] = _own_part(checkpoint["model"], self.prefix)
        if is_torchvision_resnet(checkpoint["model"]):
            return {"model": resnet_names(checkpoint["model"]), "matching_heuristics": True}
        if is_torchvision_mobilenet(checkpoint["model"]):  # our backbone has torchvision's names
            return {"model": checkpoint["model"], "matching_heuristics": True}
        return checkpoint

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if incompatible.incorrect_shapes:
            shapes = [f"{k} {file} for {model}" for k, file, model in incompatible.incorrect_shapes]
            raise ValueError(
                f"{self.key} must hold weights of the model's shapes; got {_listed(shapes)}"
            )
        missing = [k for k in incompatible.missing_keys if not k.endswith("num_batches_tracked")]
        if missing:
            raise ValueError(
                f"{self.key} must hold every weight of the model; "
                f"missing {len(missing)}: {_listed(missing)}"
            )


def _own_part(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    theirs = {k.removeprefix(TEACHER): v for k, v in state.items() if k.startswith(TEACHER)}
    if prefix == TEACHER and theirs:
        return theirs
    return {k: v for k, v in state.items() if not k.startswith(TEACHER)}


class StudentCheckpointer(VerifiedCheckpointer):
    """Save and load the student's plain checkpoint, with the distiller's state beside it.

    Resuming restores everything and verifies it. Initial weights may cover a part of the student,
    such as its backbone, and say how much; covering nothing is an error.
    """

    _is_resuming = False

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the folder's last checkpoint, or load initial weights from `path`."""
        self._is_resuming = resume and self.has_checkpoint()
        return super().resume_or_load(path, resume=resume)

    def _check_methods(self, saved: Mapping[str, Any]) -> None:
        methods = self.checkpointables.get("methods")
        wanted = set(methods.state_dict()) if methods is not None else set()
        differing = sorted(wanted ^ set(saved))
        if differing:
            raise ValueError(
                "MODEL.DISTILL must have the methods and settings of the run to resume; got "
                f"'{self.get_checkpoint_file()}', which differs in {_listed(differing)}"
            )

    def _load_nothing(self) -> dict[str, Any]:
        self.logger.info("No initial weights: %s is empty, training from scratch", self.key)
        return {}

    def _load_model(self, checkpoint: Any) -> Any:
        if self._is_resuming:
            has, wants = "methods" in checkpoint, "methods" in self.checkpointables
            if has != wants:
                kinds = {True: "distilled", False: "plain"}
                raise ValueError(
                    f"MODEL.DISTILL.METHODS must be those of the run to resume; got a "
                    f"{kinds[wants]} run for '{self.get_checkpoint_file()}', which is from a "
                    f"{kinds[has]} one"
                )
            self._check_methods(checkpoint.get("methods", {}))
        return super()._load_model(checkpoint)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if self._is_resuming:
            return super()._log_incompatible_keys(incompatible)
        wanted = {k for k in self.model.state_dict() if not k.endswith("num_batches_tracked")}
        absent = {*incompatible.missing_keys, *(k for k, _, _ in incompatible.incorrect_shapes)}
        if not wanted - absent:
            raise ValueError(
                f"{self.key} must hold weights of the student; got a file with none of them, its "
                f"first names are {_listed(incompatible.unexpected_keys)}"
            )
        part = _part_of
        totals, loaded = Counter(map(part, wanted)), Counter(map(part, wanted - absent))
        self.logger.info(
            "Initial weights found: %s",
            ", ".join(f"{name} {loaded[name]} of {totals[name]}" for name in sorted(totals)),
        )
        for name in sorted(totals):
            if 0 < loaded[name] < totals[name]:
                lacking = sorted(k for k in wanted & absent if part(k) == name)
                self.logger.warning("Initialised only in part: %s: %s", name, _listed(lacking))
        return None


def _part_of(key: str) -> str:
    return ".".join(key.split(".")[:2])
