"""A run as its output folder describes it.

A step is what the run counts: an iteration of a detector, an epoch of a classifier. Steps are
counted from 1: the values of step 20 are those after 20 steps.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reviewkd_det.common.console.commands import script_command

__all__ = ["CLASSIFIER", "DETECTOR", "LAZY_DETECTOR", "Kind", "Run"]


@dataclass(frozen=True)
class Kind:
    """What writes a run, and under which keys its config says what.

    Args:
        script: script that trains it.
        unit: name of a step, which is also its key in the metrics.
        metrics: file of the values over the steps.
        first_step: number of the first step in that file.
        length: config key of the number of steps.
        folder: config key of the output folder.
        seed: config key of the seed.
        batch: config key of the number of images in a step.
        methods: config key of the distillation methods.
        teacher: config keys of the teacher's weights and name; the first that is not empty counts.
    """

    script: str
    unit: str
    metrics: str
    first_step: int
    length: str
    folder: str
    seed: str
    batch: str
    methods: str
    teacher: tuple[str, ...]


DETECTOR = Kind(
    script="tools/train_net.py",
    unit="iteration",
    metrics="metrics.json",
    first_step=0,
    length="SOLVER.MAX_ITER",
    folder="OUTPUT_DIR",
    seed="SEED",
    batch="SOLVER.IMS_PER_BATCH",
    methods="MODEL.DISTILL.METHODS",
    teacher=("MODEL.DISTILL.TEACHER.WEIGHTS", "MODEL.DISTILL.TEACHER.CONFIG_FILE"),
)
LAZY_DETECTOR = Kind(
    script="tools/lazyconfig_train_net.py",
    unit="iteration",
    metrics="metrics.json",
    first_step=0,
    length="train.max_iter",
    folder="train.output_dir",
    seed="train.seed",
    batch="dataloader.train.total_batch_size",
    methods="model.methods",
    teacher=("model.teacher.weights", "model.teacher.config_file"),
)
CLASSIFIER = Kind(
    script="classification/train.py",
    unit="epoch",
    metrics="metrics.jsonl",
    first_step=1,
    length="SOLVER.EPOCHS",
    folder="OUTPUT_DIR",
    seed="SEED",
    batch="SOLVER.BATCH_SIZE",
    methods="DISTILL.METHODS",
    teacher=("TEACHER.WEIGHTS", "TEACHER.NAME"),
)


@dataclass(frozen=True)
class Run:
    """One training, whole or interrupted.

    Args:
        name: name in the report.
        folder: output folder.
        kind: what wrote it.
        config: value of every config key that means something to the run; keys are dotted.
        history: finite values by name, for each step.
        summary: content of `summary.json`; empty where there is none.
        record: content of `run.json`; empty where there is none.
    """

    name: str
    folder: Path
    kind: Kind
    config: dict[str, Any]
    history: dict[int, dict[str, float]]
    summary: dict[str, Any]
    record: dict[str, Any]

    def series(self, key: str) -> dict[int, float]:
        """Look up a value by step, where it is known."""
        return {step: values[key] for step, values in self.history.items() if key in values}

    @cached_property
    def last(self) -> dict[str, float]:
        """Every value as it was last written."""
        return {key: value for values in self.history.values() for key, value in values.items()}

    @property
    def steps(self) -> int:
        """The steps that are known to be done."""
        return max(self.history, default=0)

    @property
    def length(self) -> int:
        """The steps that the config asks for."""
        return int(self.config.get(self.kind.length, self.steps))

    @property
    def is_finished(self) -> bool:
        """Whether the run did all of its steps."""
        return self.steps >= self.length

    @property
    def seed(self) -> str:
        """The seed as text, or "random"."""
        seed = self.config.get(self.kind.seed, -1)
        return "random" if seed is None or seed < 0 else str(seed)

    @property
    def methods(self) -> list[str]:
        """The names of its distillation methods; none in a plain run."""
        if named := self.config.get(self.kind.methods):
            return list(named)
        below = f"{self.kind.methods}."  # a Python config has a tree of them
        names = [x.removeprefix(below).split(".")[0] for x in self.config if x.startswith(below)]
        return [name for name in dict.fromkeys(names) if name != "_target_"]

    @property
    def teacher(self) -> str:
        """The weights or else the name of its teacher in the config; empty for a plain run."""
        values = (self.config.get(key) for key in self.kind.teacher)
        return next((str(value) for value in values if value), "") if self.methods else ""

    @property
    def batch(self) -> int | None:
        """The images of a step; None where the config does not say."""
        labeled = self.config.get(self.kind.batch)
        joins = self.methods and self.config.get("DATASETS.UNLABELED")
        unlabeled = self.config.get("SOLVER.UNLABELED_PER_BATCH", 0) if joins else 0
        return None if labeled is None else labeled + unlabeled

    @property
    def command(self) -> str:
        """The command that started the run; for one without a record, one with its whole config."""
        whole = script_command(self.kind.script, "--config-file", self.folder / "config.yaml")
        return self.record.get("command") or whole
