"""A run as its output folder describes it.

A step is what the run counts: an iteration of a detector, an epoch of a classifier. Steps are
counted from 1: the values of step 20 are those after 20 steps.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["CLASSIFIER", "DETECTOR", "LAZY_DETECTOR", "Kind", "Run"]


@dataclass(frozen=True)
class Kind:
    """What writes a run, and under which keys its config says what.

    Args:
        script: trains it.
        unit: of its steps.
        metrics: the file of its values over its steps.
        step: the key of a step there.
        first_step: the first one's number there.
        length: the config key of the number of steps.
        folder: of its output folder.
        seed: of its seed.
        batch: of the images in a step.
        methods: of its distillation methods.
        teacher: of its teacher's name or weights, the first that is not empty.
    """

    script: str
    unit: str
    metrics: str
    step: str
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
    step="iteration",
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
    step="iteration",
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
    step="epoch",
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
        name: as the report calls it.
        folder: its output folder.
        kind: what wrote it.
        config: every key that means something to it, dotted, and its value.
        history: per step its values by name, all finite.
        summary: what its `summary.json` holds; empty where there is none.
    """

    name: str
    folder: Path
    kind: Kind
    config: dict[str, Any]
    history: dict[int, dict[str, float]]
    summary: dict[str, Any]

    def series(self, key: str) -> dict[int, float]:
        """A value by step, where it is known."""
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
    def methods(self) -> list[str]:
        """Its distillation methods by name; none in a plain run."""
        if named := self.config.get(self.kind.methods):
            return list(named)
        below = f"{self.kind.methods}."  # a Python config has a tree of them
        names = (
            key.removeprefix(below).split(".")[0] for key in self.config if key.startswith(below)
        )
        return [name for name in dict.fromkeys(names) if name != "_target_"]

    @property
    def teacher(self) -> str:
        """Its teacher's weights or else name, as the config says; empty in a plain run."""
        values = (self.config.get(key) for key in self.kind.teacher)
        return next((str(value) for value in values if value), "") if self.methods else ""

    @property
    def batch(self) -> int | None:
        """The images of a step; None where the config does not say."""
        labeled = self.config.get(self.kind.batch)
        joins = self.methods and self.config.get("DATASETS.UNLABELED")
        unlabeled = self.config.get("SOLVER.UNLABELED_PER_BATCH", 0) if joins else 0
        return None if labeled is None else labeled + unlabeled

    @cached_property
    def max_memory(self) -> int | None:
        """The largest GPU memory that the log names, in MB; None where it names none."""
        found = re.findall(r"max_mem: (\d+)M", self.log)
        return max(map(int, found), default=None)

    @cached_property
    def log(self) -> str:
        """Its `log.txt`; empty where there is none."""
        path = self.folder / "log.txt"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
