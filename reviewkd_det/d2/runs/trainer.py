"""Training a detector, plain or distilled, that was built from a YAML or from a Python config."""

import logging
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, default_writers, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm

from reviewkd_det.common.runs.files import read_json_object
from reviewkd_det.common.runs.random_state import restore_random_state
from reviewkd_det.common.tensors.memory import max_gpu_memory
from reviewkd_det.d2.compat import hooks_of
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.runs.accumulation import StepBatches, build_step
from reviewkd_det.d2.runs.augmented import joined
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.runs.early_stopping import EarlyStopping, EndOfTraining
from reviewkd_det.d2.runs.evaluation import write_json
from reviewkd_det.d2.runs.hooks import BestCheckpoint, LRScheduler, SaveState
from reviewkd_det.d2.runs.launch import data_parallel, unwrapped
from reviewkd_det.d2.runs.not_finite import describe_failures
from reviewkd_det.d2.runs.settings import Parts, RunSettings
from reviewkd_det.d2.runs.tracking import TrackedRun, TrackerWriter

__all__ = ["Trainer"]


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
        accumulated, loader = settings.accumulation_steps, parts.train_loader
        self.data_loader = StepBatches(loader, accumulated) if accumulated > 1 else loader
        self.model = data_parallel(parts.model, **(parts.ddp or {}))
        self.train_seconds = 0.0
        self.results: dict[str, Any] | None = None
        self._evaluated_after: int | None = None
        self.start_iter, self.max_iter = 0, settings.max_iter
        self._finished_summary: Any = None
        self._trainer = build_step(
            self.model,
            self.data_loader,
            self.optimizer,
            precision=settings.precision,
        )
        self.early_stopping: EarlyStopping | None = None
        self.tracked = TrackedRun(settings)
        methods: Any = getattr(parts.model, "methods", None)
        self.checkpointer = StudentCheckpointer(
            parts.model,
            settings.output_dir,
            key=settings.weights_key,
            entry=settings.weights_entry,
            trainer=weakref.proxy(self),
            **({"methods": methods} if methods else {}),
        )
        self.checkpointer.keep_average(parts.average)
        self.register_hooks(self._build_hooks())

    def _build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks; ours save, last, so that nothing of the iteration is lost."""
        settings, is_main = self.settings, comm.is_main_process()
        built = [hooks.IterationTimer(), LRScheduler(), *self.parts.hooks]
        if self.parts.evaluate is not None:
            built.append(hooks.EvalHook(settings.eval_period, self._evaluate))
            if settings.eval_period > 0 and is_main:
                metric = settings.best_metric
                built.append(BestCheckpoint(settings.eval_period, self.checkpointer, metric))
            if settings.patience:
                best = built[-1] if is_main else None
                self.early_stopping = EarlyStopping(settings.eval_period, settings.patience, best)
                built.append(self.early_stopping)
        if is_main:
            writers = default_writers(settings.output_dir, settings.max_iter)
            writers += [TrackerWriter(self.tracked)] if settings.trackers else []
            built.append(hooks.PeriodicWriter(writers, settings.log_period))
        period, keep = settings.checkpoint_period, settings.checkpoints_to_keep
        return [*built, SaveState(self.checkpointer, period, keep)]

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on with the run of the output folder, or begin one with the initial weights.

        Args:
            resume: whether to go on where the folder has a checkpoint.
        """
        settings = self.settings
        loaded = self.checkpointer.resume_or_load(settings.weights, resume=resume)
        if self.checkpointer.resumed:
            self.start_iter = self.iter + 1
        else:
            start_new, student = self.parts.start_new, self.checkpointer.model
            inherited = start_new(student) if start_new is not None else ()
            self.checkpointer.warn_of_start(settings.images, settings.keys, inherited)
        self.checkpointer.begin_average(loaded, settings.option_keys["ema_decay"])
        self.tracked.goes_on = bool(self.checkpointer.resumed)
        self.data_loader.skip(self.start_iter)
        if self.checkpointer.resumed:
            self._take_last_results()
            restore_random_state(loaded.get("random_states", []), comm.get_rank())

    @property
    def is_finished(self) -> bool:
        """Whether the run has nothing left to train, and its result is in `summary.json`."""
        return self._finished_summary is not None

    def train(self) -> dict[str, Any] | None:
        """Train, evaluate, and write `summary.json`; return the results of the evaluation.

        A run that is finished already is left as it is.
        """
        if self.is_finished:
            self.results = self._finished_summary["results"]
            why = f"no more are asked for, {self.max_iter}"
            if self.stopped_early:
                why = f"{self.settings.patience} evaluations in a row gave no better result"
            logging.getLogger(__name__).warning(
                "Nothing to train: the run in %s has done %d iterations, and %s; its result stays "
                "in summary.json",
                self.settings.output_dir, self.start_iter, why,
            )  # fmt: skip
            return self.results
        with self.tracked as tracked:
            with suppress(EndOfTraining):
                super().train(self.start_iter, self.max_iter)
            if comm.is_main_process():
                tracked.result = self._write_summary()
        return self.results

    def after_step(self) -> None:
        """Call the hooks, and leave the loop where one of them has ended the training."""
        super().after_step()
        if self.stopped_early:
            self.iter += 1  # as after Detectron2's last iteration
            raise EndOfTraining

    @property
    def stopped_early(self) -> bool:
        """Whether the run has ended because its results grew no better."""
        return self.early_stopping is not None and self.early_stopping.is_over

    def run_step(self) -> None:
        """One iteration, timed."""
        start = time.perf_counter()
        self._trainer.iter = self.iter
        with describe_failures(self):
            self._trainer.run_step()
        if self.parts.average is not None:
            self.parts.average.update_parameters(self.checkpointer.model)
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

    def _read_summary(self) -> Any:
        """The summary of the run where it had come to its end; else None, in every process."""
        summary = read_json_object(Path(self.settings.output_dir, "summary.json"))
        is_whole = summary.get("iterations") == self.start_iter and "results" in summary
        return comm.all_gather(summary if is_whole else None)[0]

    def _take_last_results(self) -> None:
        """Find whether the run to go on with had ended, and with which results.

        Its last checkpoint was saved before they were known to the hooks.
        """
        summary = self._read_summary()
        if summary and summary["results"] and not summary.get("stopped_early"):
            for hook in hooks_of(self):
                if isinstance(hook, BestCheckpoint):
                    hook.take_last(summary["results"], self.start_iter)
            if self.early_stopping is not None:
                self.early_stopping.take_last(self.start_iter)
        if self.stopped_early:
            self.max_iter = self.start_iter
        if self.start_iter >= self.max_iter:
            self._finished_summary = summary

    def _evaluate(self) -> dict[str, Any]:
        """The results after this iteration; those of the last evaluation where it was just now."""
        assert self.parts.evaluate is not None
        done = min(self.iter + 1, self.max_iter)
        average = self.parts.average
        model = self.model if average is None else average.module
        if self._evaluated_after != done:
            self.results = self.parts.evaluate(model)
            self._evaluated_after = done
        assert self.results is not None
        if self.parts.evaluate_end is not None and done >= self.max_iter:
            self.results = joined(self.results, self.parts.evaluate_end(model))
        return self.results

    def _write_summary(self) -> dict[str, Any]:
        model = unwrapped(self.model)
        student = model.student if isinstance(model, DistilledDetector) else model
        path = Path(self.settings.output_dir, "summary.json")
        summary = {
            "iterations": max(self.start_iter, self.max_iter),
            "stopped_early": self.stopped_early,
            "train_seconds": round(self.train_seconds, 2),
            "parameters": sum(p.numel() for p in student.parameters()),
            "max_memory_mb": max_gpu_memory(),
            "precision": self.settings.precision,
            "teacher_precision": _teacher_precision(model),
            "results": self.results,
        }
        write_json(path, summary)
        logging.getLogger(__name__).info("Wrote %s", path)
        return summary


def _teacher_precision(model: Any) -> str | None:
    """In what the teacher's backbone runs; None without a teacher."""
    module = getattr(getattr(model, "teacher", None), "module", None)
    return getattr(module, "precision_name", None)
