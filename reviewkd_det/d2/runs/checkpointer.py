"""What a run saves, and what it begins with or goes on from."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reviewkd_det.common import listed, replace_file
from reviewkd_det.common.runs.recovery import LAST, candidates, last_good, tagged
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer

__all__ = ["BEST", "StudentCheckpointer"]

BEST = "model_best"  # the name of the checkpoint that nothing goes on from


class StudentCheckpointer(VerifiedCheckpointer):
    """Save and load the student's plain checkpoint, with the distiller's state beside it.

    Resuming restores everything and verifies it. Initial weights may cover a part of the student,
    such as its backbone, and say how much; covering nothing is an error.
    """

    _is_resuming = False
    _good = ""

    def save(self, name: str, **kwargs: Any) -> None:
        """Save the student, the distiller and what else belongs to the run, as a whole or not.

        Raises:
            OSError: it cannot be written, as on a full disk; earlier checkpoints are untouched.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        others = {key: part.state_dict() for key, part in self.checkpointables.items()}
        content = {"model": self.model.state_dict(), **others, **kwargs}
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)

        def write(part: Path) -> None:
            with part.open("wb") as file:
                torch.save(content, file)

        try:
            replace_file(path, write)
            if name != BEST:
                replace_file(path.with_name(LAST), lambda part: part.write_text(path.name))
        except (OSError, RuntimeError) as error:  # torch's own is a RuntimeError
            last = tagged(self.save_dir)
            raise OSError(
                f"checkpoint must be written; got '{path}': {error}; "
                + (f"the last good one is '{last}'" if last else "there is no earlier one")
            ) from error

    def has_checkpoint(self) -> bool:
        """Whether the folder has anything to go on from."""
        return bool(self.save_dir and candidates(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """The checkpoint that is gone on from."""
        return self._good or next(iter(candidates(self.save_dir)), "")

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the folder's last good checkpoint, or load initial weights from `path`.

        Raises:
            ValueError: the folder has checkpoints and none can be read, or see `load`.
        """
        self._is_resuming = resume and self.has_checkpoint()
        self._good = ""
        if self._is_resuming:
            self._good = last_good(self.save_dir, self._load_file, self.logger)
        return super().resume_or_load(path, resume=resume)

    def _check_methods(self, saved: Mapping[str, Any]) -> None:
        methods = self.checkpointables.get("methods")
        wanted = set(methods.state_dict()) if methods is not None else set()
        differing = sorted(wanted ^ set(saved))
        if differing:
            raise ValueError(
                "MODEL.DISTILL must have the methods and settings of the run to resume; got "
                f"'{self.get_checkpoint_file()}', which differs in {listed(differing)}"
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
                f"first names are {listed(incompatible.unexpected_keys)}"
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
                self.logger.warning("Initialised only in part: %s: %s", name, listed(lacking))
        return None


def _part_of(key: str) -> str:
    return ".".join(key.split(".")[:2])
