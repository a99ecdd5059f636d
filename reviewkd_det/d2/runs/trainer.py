"""Training a detector, plain or distilled, that was built from a YAML or from a Python config."""

import logging
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, default_writers, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from torch import nn

from reviewkd_det.common.runs.random_state import restore_random_state
from reviewkd_det.common.tensors.memory import max_gpu_memory
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.runs.evaluation import write_json
from reviewkd_det.d2.runs.hooks import BestCheckpoint, SaveState
from reviewkd_det.d2.runs.launch import data_parallel, unwrapped
from reviewkd_det.d2.runs.not_finite import describe_failures
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images

__all__ = ["Parts", "RunSettings", "Trainer"]


class TrainLoader(Protocol):
    """Endless training batches that a resumed run goes on with."""

    @property
    def last_batch(self) -> Any:
        """The batch given last."""

    def skip(self, batches: int) -> None:
        """Begin the next iteration after so many batches."""

    def __iter__(self) -> Any:
        """Give the batches."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Args:
        model: detector on its device.
        optimizer: optimiser of all that learns.
        scheduler: learning-rate scheduler of PyTorch, stepped in every iteration.
        train_loader: training batches.
        evaluate: function that returns a model's results; None never evaluates.
        hooks: hooks that follow the step of the scheduler.
        start_new: function that prepares the model of a new run, its initial weights loaded, and
            returns the names of the weights that it has set.
        ddp: options of `DistributedDataParallel`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    train_loader: TrainLoader
    evaluate: Callable[[nn.Module], dict[str, Any]] | None = None
    hooks: Sequence[HookBase] = ()
    start_new: Callable[[nn.Module], Collection[str]] | None = None
    ddp: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RunSettings:
    """How long a run trains, when it saves and evaluates, and where.

    Args:
        output_dir: folder of the run.
        max_iter: iterations of the run.
        weights: checkpoint of initial weights; "" trains from scratch.
        weights_key: config key that names it.
        weights_entry: entry or prefix of that file; "" finds the student's.
        images: how the config makes the student's images.
        keys: names of the config's keys of that.
        mixed_precision: whether PyTorch's automatic mixed precision is used.
        checkpoint_period: iterations between two checkpoints.
        checkpoints_to_keep: number of the newest checkpoints that stay; 0 keeps all.
        eval_period: iterations between two evaluations; 0 evaluates at the end alone.
        best_metric: result whose highest value makes `model_best.pth`.
        log_period: iterations between two lines of the log.
    """

    output_dir: str
    max_iter: int
    weights: str
    weights_key: str
    weights_entry: str
    images: Images
    keys: ConfigKeys
    mixed_precision: bool = False
    checkpoint_period: int = 5000
    checkpoints_to_keep: int = 0
    eval_period: int = 0
    best_metric: str = "bbox/AP"
    log_period: int = 20


class Trainer(TrainerBase):
    """Train what `Parts` hold, as `RunSettings` say.

    What it adds to Detectron2's `DefaultTrainer`: batches and random states that a resumed run goes
    on with, checkpoints that stay plain with the distiller's state beside the student's, several
    processes on the CPU, and `summary.json` in the output folder when training ends.

    Args:
        parts: model, optimiser, data and evaluation.
        settings: length, periods and folder.
    """

    def __init__(self, parts: Parts, settings: RunSettings) -> None:
        super().__init__()
        self.parts, self.settings = parts, settings
        self.optimizer, self.scheduler = parts.optimizer, parts.scheduler
        self.data_loader = parts.train_loader
        self.model = data_parallel(parts.model, **(parts.ddp or {}))
        self.train_seconds = 0.0
        self.results: dict[str, Any] | None = None
        self.start_iter, self.max_iter = 0, settings.max_iter
        step = AMPTrainer if settings.mixed_precision else SimpleTrainer
        self._trainer = step(self.model, self.data_loader, self.optimizer)
        methods: Any = getattr(parts.model, "methods", None)
        self.checkpointer = StudentCheckpointer(
            parts.model,
            settings.output_dir,
            key=settings.weights_key,
            entry=settings.weights_entry,
            trainer=weakref.proxy(self),
            **({"methods": methods} if methods else {}),
        )
        self.register_hooks(self._build_hooks())

    def _build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks; ours save, last, so that nothing of the iteration is lost."""
        settings, is_main = self.settings, comm.is_main_process()
        built = [hooks.IterationTimer(), hooks.LRScheduler(), *self.parts.hooks]
        if self.parts.evaluate is not None:
            built.append(hooks.EvalHook(settings.eval_period, self._evaluate))
            if settings.eval_period > 0 and is_main:
                metric = settings.best_metric
                built.append(BestCheckpoint(settings.eval_period, self.checkpointer, metric))
        if is_main:
            writers = default_writers(settings.output_dir, settings.max_iter)
            built.append(hooks.PeriodicWriter(writers, settings.log_period))
        period, keep = settings.checkpoint_period, settings.checkpoints_to_keep
        return [*built, SaveState(self.checkpointer, period, keep)]

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on with the run of the output folder, or begin one with the initial weights.

        Args:
            resume: whether to go on where the folder has a checkpoint.
        """
        loaded = self.checkpointer.resume_or_load(self.settings.weights, resume=resume)
        if self.checkpointer.resumed:
            self.start_iter = self.iter + 1
        else:
            start_new, student = self.parts.start_new, self.checkpointer.model
            inherited = start_new(student) if start_new is not None else ()
            self.checkpointer.warn_of_start(self.settings.images, self.settings.keys, inherited)
        self.data_loader.skip(self.start_iter)
        if self.checkpointer.resumed:
            restore_random_state(loaded.get("random_states", []), comm.get_rank())

    def train(self) -> dict[str, Any] | None:
        """Train, evaluate, and write `summary.json`; return the results of the evaluation."""
        super().train(self.start_iter, self.max_iter)
        if comm.is_main_process():
            self._write_summary()
        return self.results

    def run_step(self) -> None:
        """One iteration, timed."""
        start = time.perf_counter()
        self._trainer.iter = self.iter
        with describe_failures(self):
            self._trainer.run_step()
        self.train_seconds += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        """The state of the loop, its hooks and the optimiser, and the time spent training."""
        own = {"_trainer": self._trainer.state_dict(), "train_seconds": self.train_seconds}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, here or in an older run of a Python config."""
        super().load_state_dict(state_dict)
        inner = state_dict.get("_trainer", state_dict)
        self._trainer.load_state_dict({k: v for k, v in inner.items() if k != "hooks"})
        self.train_seconds = state_dict.get("train_seconds", 0.0)  # Detectron2's own has none

    def _evaluate(self) -> dict[str, Any]:
        assert self.parts.evaluate is not None
        self.results = self.parts.evaluate(self.model)
        return self.results

    def _write_summary(self) -> None:
        model = unwrapped(self.model)
        student = model.student if isinstance(model, DistilledDetector) else model
        path = Path(self.settings.output_dir, "summary.json")
        summary = {
            "iterations": self.max_iter,
            "train_seconds": round(self.train_seconds, 2),
            "parameters": sum(p.numel() for p in student.parameters()),
            "max_memory_mb": max_gpu_memory(),
            "results": self.results,
        }
        write_json(path, summary)
        logging.getLogger(__name__).info("Wrote %s", path)
