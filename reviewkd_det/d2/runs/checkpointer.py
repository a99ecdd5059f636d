"""What a run saves, and what it begins with or goes on from."""

from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from reviewkd_det.common import listed, replace_file
from reviewkd_det.common.runs.average import MovingAverage
from reviewkd_det.common.runs.checkpoints import Checkpoints, find_flaw
from reviewkd_det.d2.backbone.feature_net import trained_names
from reviewkd_det.d2.runs.ema import TRAINED, TrainedWeights
from reviewkd_det.d2.weights.cautions import (
    ConfigKeys,
    Images,
    warn_of_frozen,
    warn_of_images,
)
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer

__all__ = ["BEST", "FINAL", "StudentCheckpointer", "checkpoints_of", "last_checkpoint"]

BEST = "model_best"  # the name of the checkpoint that nothing goes on from
FINAL = "model_final"
TAG = "last_checkpoint"  # Detectron2's own file that names one; here it is written and never read
ENTRIES = frozenset({"model", "trainer", "iteration"})


def checkpoints_of(folder: str | Path) -> Checkpoints:
    """The checkpoints of a run's output folder, by Detectron2's names."""
    whole = partial(find_flaw, entries=ENTRIES)
    return Checkpoints(Path(folder), r"model_(\d+)\.pth", whole, final=f"{FINAL}.pth")


def last_checkpoint(folder: str | Path) -> str:
    """The path of a run's last whole checkpoint; "" where it has none.

    Raises:
        ValueError: it has checkpoints, and none is whole.
    """
    path = checkpoints_of(folder).last_whole()
    return "" if path is None else str(path)


class StudentCheckpointer(VerifiedCheckpointer):
    """Save and load the student's plain checkpoint, with the distiller's state beside it.

    Resuming restores everything and verifies it. Initial weights may cover a part of the student,
    such as its backbone, and say how much; covering nothing is an error.

    Args:
        model: module to fill.
        save_dir: output folder of the run; "" never saves.
        key: config key that names the initial weights, for error sentences.
        entry: entry or prefix of their file that is taken; "" finds the student's.
        checkpointables: other objects with `state_dict` saved beside the model.
    """

    def __init__(
        self,
        model: Any,
        save_dir: str = "",
        *,
        key: str,
        entry: str = "",
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, key=key, entry=entry, **checkpointables)
        self.files = checkpoints_of(save_dir)
        # Names of weights that no file has given.
        self.absent = set(self.model.state_dict()) - trained_names(self.model)
        self.resumed = ""  # the checkpoint that the run goes on from
        self._trained: TrainedWeights | None = None

    def keep_average(self, average: MovingAverage | None) -> None:
        """Save an average of the student's weights as the student, and those that are trained."""
        if average is not None:
            self._trained = TrainedWeights(self.model, average)
            self.add_checkpointable(TRAINED, self._trained)

    def begin_average(self, loaded: Mapping[str, Any], key: str = "SOLVER.EMA_DECAY") -> None:
        """Let the average begin with the weights that were loaded where it does not go on.

        Args:
            loaded: what `resume_or_load` returned.
            key: config key of the average.

        Raises:
            ValueError: the run to go on with averages its weights, and this one does not.
        """
        if self._trained is not None:
            self._trained.begin(self.resumed)
        elif self.resumed and TRAINED in loaded:
            raise ValueError(
                f"{key} must be that of the run to resume; got 0 for '{self.resumed}', whose "
                "weights are an average"
            )

    def save(self, name: str, **kwargs: Any) -> None:
        """Save the student, the distiller and what else belongs to the run, as a whole or not.

        Raises:
            OSError: it cannot be written, as on a full disk; earlier checkpoints are untouched.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        others = {key: part.state_dict() for key, part in self.checkpointables.items()}
        file = f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", Path(self.save_dir, file))
        model = self.model if self._trained is None else self._trained.average.module
        self.files.save(file, {"model": model.state_dict(), **others, **kwargs})
        if name != BEST:
            tag = Path(self.save_dir, TAG)
            with self.files.writing(tag):
                replace_file(tag, lambda part: part.write_text(file))

    def has_checkpoint(self) -> bool:
        """Whether the folder has anything to go on from."""
        return bool(self.save_dir and self.files.all())

    def get_checkpoint_file(self) -> str:
        """The checkpoint that is gone on from."""
        return self.resumed

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the folder's last whole checkpoint, or load initial weights from `path`.

        Raises:
            ValueError: the folder has checkpoints and none can be read, or see `load`.
        """
        whole = self.files.last_whole() if resume and self.save_dir else None
        self.resumed = "" if whole is None else str(whole)
        self.entry = "" if self.resumed else self.entry
        return super().resume_or_load(path, resume=bool(self.resumed))

    def warn_of_start(self, images: Images, keys: ConfigKeys, given: Collection[str]) -> None:
        """Warn of initial weights that do not go with the images or with what is never trained.

        Args:
            images: how the config makes the student's images.
            keys: names of the config's keys.
            given: names of weights that the student has got since it was loaded.
        """
        source = f"{self.key} '{self.loaded}'"
        if self.found is not None:
            state = self.found.part.state
            warn_of_images(source, self.author, state, self.model, images, keys)
        warn_of_frozen(source, self.absent - set(given), self.model, keys.freezing)

    def _check_methods(self, saved: Mapping[str, Any]) -> None:
        methods = self.checkpointables.get("methods")
        wanted = set(methods.state_dict()) if methods is not None else set()
        differing = sorted(wanted ^ set(saved))
        if differing:
            raise ValueError(
                "MODEL.DISTILL must have the methods and settings of the run to resume; got "
                f"'{self.resumed}', which differs in {listed(differing)}"
            )

    def _load_nothing(self) -> dict[str, Any]:
        trained = len(self.model.state_dict()) - len(self.absent)
        start = f"{trained} weights of its backbone's network" if trained else "scratch"
        self.logger.info("No initial weights: %s is empty, training from %s", self.key, start)
        return {}

    def _load_model(self, checkpoint: Any) -> Any:
        if self.resumed:
            has, wants = "methods" in checkpoint, "methods" in self.checkpointables
            if has != wants:
                kinds = {True: "distilled", False: "plain"}
                raise ValueError(
                    f"MODEL.DISTILL.METHODS must be those of the run to resume; got a "
                    f"{kinds[wants]} run for '{self.resumed}', which is from a "
                    f"{kinds[has]} one"
                )
            self._check_methods(checkpoint.get("methods", {}))
        return super()._load_model(checkpoint)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if self.resumed:
            return super()._log_incompatible_keys(incompatible)
        wanted = {k for k in self.model.state_dict() if not k.endswith("num_batches_tracked")}
        self.absent = absent = {
            *incompatible.missing_keys,
            *(k for k, _, _ in incompatible.incorrect_shapes),
        }
        if not wanted - absent:
            raise ValueError(
                f"{self.key} must hold weights of the student; got a file with none of them, its "
                f"first names are {listed(incompatible.unexpected_keys)}{self.found_names}"
            )
        totals = Counter(map(_part_of, wanted))
        loaded = Counter(map(_part_of, wanted - absent))
        self._warn_of_unused(incompatible.unexpected_keys)
        self.logger.info(
            "Initial weights found: %s",
            ", ".join(f"{name} {loaded[name]} of {totals[name]}" for name in sorted(totals)),
        )
        for name in sorted(totals):
            if 0 < loaded[name] < totals[name]:
                lacking = sorted(k for k in wanted & absent if _part_of(k) == name)
                self.logger.warning("Initialised only in part: %s: %s", name, listed(lacking))
        return None


def _part_of(key: str) -> str:
    return ".".join(key.split(".")[:2])
