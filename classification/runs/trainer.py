"""The training loop."""

import logging
import math
import time
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.nn.utils import get_total_norm
from tqdm import tqdm

from classification.build import build_mixing, build_optimizer
from classification.build_classifier import build_classifier
from classification.config_checks import AVERAGE, taught
from classification.data import Data
from classification.own_average import teacher_from_average
from classification.partly_labeled import count_labeled
from classification.runs.batch_statistics import check_batch_statistics
from classification.runs.epoch_losses import EpochLosses
from classification.runs.folder import RunFolder
from classification.runs.schedule import build_schedule
from classification.runs.states import States
from classification.runs.summary import summarize
from classification.runs.testing import Testing
from classification.runs.tracking import Tracking
from reviewkd_det.common.distill.ratio import log_ratios
from reviewkd_det.common.runs.average import MovingAverage
from reviewkd_det.common.runs.changes import Settled
from reviewkd_det.common.runs.stopping import StopRequest

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)
CHECK_PERIOD = 20  # optimiser steps between two looks at the losses; a look waits for the device


class Trainer:
    """Train what a config describes.

    Args:
        cfg: config that `load_config` has read.
        accelerator: accelerator of this process.
        run: folder of the run.
        data: training and test data.
    """

    def __init__(self, cfg: CfgNode, accelerator: Accelerator, run: RunFolder, data: Data) -> None:
        self.cfg = cfg
        self.accelerator = accelerator
        self.run = run
        self.data = data
        set_seed(cfg.SEED)
        classifier, self.student = build_classifier(
            cfg,
            len(data.class_names),
            labeled_share=data.labeled_share,
            samples=data.train.labels.cpu(),
        )
        check_batch_statistics(classifier, cfg, accelerator)
        optimizer = build_optimizer(cfg, classifier, self.student)
        self.schedule = build_schedule(cfg.SOLVER)
        classifier = classifier.to(memory_format=torch.channels_last)
        self.classifier, self.optimizer = accelerator.prepare(classifier, optimizer)
        self.plain = accelerator.unwrap_model(self.classifier)
        if cfg.SOLVER.COMPILE != "none":
            self.plain.compile_losses(cfg.SOLVER.COMPILE)
        decay = cfg.SOLVER.EMA_DECAY
        self.average = MovingAverage(self.plain.student, decay).eval() if decay else None
        self.is_own_teacher = cfg.TEACHER.NAME == AVERAGE and bool(taught(cfg))
        if self.average is not None and self.is_own_teacher:
            self.plain.teacher = teacher_from_average(self.average.module)
        self.testing = Testing(
            cfg, accelerator, run, data, self.classifier, self.student, self.average
        )
        self.mix = build_mixing(cfg, accelerator, len(data.class_names))
        self.tracking = Tracking(accelerator, cfg)
        model, keep = self.classifier, cfg.SOLVER.STATES_TO_KEEP
        files = run.state_files
        self.states = States(files, accelerator, model, self.optimizer, keep, self.average)
        # What a resumed run goes on with, beside the state of model and optimiser.
        self.progress: dict[str, Any] = {
            "epoch": 0, "train_seconds": 0.0, "wall_seconds": 0.0, "last": None, "best": None,
            "teacher": None, "waited": 0,
            # Of the epoch that is not done: optimiser steps of how many, sums of losses, seconds.
            "step": 0, "steps": self.steps, "losses": {}, "epoch_seconds": 0.0,
        }  # fmt: skip
        self._clock = time.perf_counter()

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return len(self.data.train) // self.cfg.SOLVER.ACCUMULATION_STEPS

    def train(self, stop: StopRequest) -> dict[str, Any] | None:
        """Train to the last epoch, evaluate, and write the run's files.

        Args:
            stop: request after whose signal the state is saved, after the step at hand.

        Returns:
            The content of `summary.json`, that of a run that was finished already as it is; None
            where a signal came first.

        Raises:
            FloatingPointError: a loss or weight is not finite; the last state is kept.
            OSError: a file cannot be written; the last state is kept.
        """
        cfg, done, parts = self.cfg, self.progress["epoch"], self.cfg.SOLVER.ACCUMULATION_STEPS
        if done >= cfg.SOLVER.EPOCHS and self.run.read_summary().get("epochs") == done:
            logger.warning(
                "Nothing to train: the run in %s has done %d epochs, and no more are asked for, "
                "%d; its result stays in summary.json",
                self.run.path, done, cfg.SOLVER.EPOCHS,
            )  # fmt: skip
            return self.run.read_summary()
        if not self.is_own_teacher:
            self.testing.test_teacher(self.progress)
        with tqdm(
            total=cfg.SOLVER.EPOCHS * self.steps * parts,
            initial=(done * self.steps + self.progress["step"]) * parts,
            unit="it",
            mininterval=1,
            disable=not self.accelerator.is_main_process,
        ) as bar:
            for epoch in range(done + 1, cfg.SOLVER.EPOCHS + 1):
                if self._stops_early():
                    break
                metrics = self._train_epoch(epoch, stop, bar)
                if metrics is None:
                    return None
                if epoch % cfg.TEST.PERIOD == 0 or epoch == cfg.SOLVER.EPOCHS:
                    metrics |= self.testing.test_student(epoch, self.progress)
                self.run.add_metrics({"epoch": epoch, **metrics})
                self._save(epoch)
                self.tracking.log(metrics, epoch)
                shown = [f"{name} {value:.4g}" for name, value in metrics.items()]
                logger.info("epoch %d/%d: %s", epoch, cfg.SOLVER.EPOCHS, ", ".join(shown))
                if epoch < cfg.SOLVER.EPOCHS and stop.signal():
                    return None
        self._evaluate_end()
        self.testing.test_peers(self.progress)
        summary = summarize(cfg, self.progress, self.student, self.data)
        self.run.write_summary(summary)
        return summary

    @property
    def position(self) -> str:
        """How far the run is, in words."""
        epoch, step = self.progress["epoch"], self.progress["step"]
        if not step:
            return f"after epoch {epoch} of {self.cfg.SOLVER.EPOCHS}"
        return f"in epoch {epoch + 1} of {self.cfg.SOLVER.EPOCHS} after step {step} of {self.steps}"

    @property
    def goes_on(self) -> bool:
        """Whether the run was resumed, or has trained already."""
        return bool(self.progress["epoch"] or self.progress["step"])

    def resume(self) -> None:
        """Load the run's last state, if there is one.

        Raises:
            FileNotFoundError: the run's folder has its weights or metrics, and no state.
            ValueError: the state does not fit what is configured.
        """
        progress = self.states.load()
        if progress is None:
            self.run.refuse_lost_states()
            return
        if progress["step"] and progress["epoch"] >= self.cfg.SOLVER.EPOCHS:
            raise ValueError(
                f"SOLVER.EPOCHS must be more than the {progress['epoch']} epochs that the run has "
                f"done, since it goes on in the middle of the next; got {self.cfg.SOLVER.EPOCHS}"
            )
        self.run.forget_metrics_after(progress["epoch"])
        if progress["step"] and progress["steps"] != self.steps:
            raise ValueError(
                f"run must keep the {progress['steps']} steps of an epoch in the middle of which "
                f"it goes on; got {self.steps}; set SOLVER.BATCH_SIZE and the data as they were"
            )
        self.progress = {**progress, "steps": self.steps}
        logger.info("Going on %s", self.position)

    def note_changes(self, settled: Settled) -> None:
        """Log what a resumed run is asked for that it did not begin with."""
        if settled.warning:
            logger.warning("%s", settled.warning)
        if any(key.startswith(("TEACHER.", "DATA.")) for key in settled.changed):
            self.progress["teacher"] = None  # which is tested anew

    def _train_epoch(self, epoch: int, stop: StopRequest, bar: tqdm) -> dict[str, float] | None:
        """The rest of an epoch; returns its mean losses and speed, or None on a signal."""
        self._take_time()
        self.classifier.train()
        parts, period = self.cfg.SOLVER.ACCUMULATION_STEPS, self.cfg.SOLVER.CHECKPOINT_PERIOD
        batches, done = len(self.data.train), self.progress["step"] * parts
        self.data.train.set_epoch(epoch, done)
        losses = EpochLosses(self.accelerator, self.progress["losses"])
        compared = done > 0
        loader = zip(self.data.train.batches, self.data.train, strict=True)
        for batch, (sample, (images, labels)) in enumerate(loader, start=done + 1):
            self._set_learning_rate(epoch - 1 + (batch - 1) // parts * parts / batches)
            mixed = self.mix(images, labels, epoch, batch)
            values = self._train_batch(*mixed, epoch, sample, losses)
            if not compared and (labeled := count_labeled(labels)):
                self._log_ratios(values, epoch, labeled / len(labels))
                compared = True
            step = batch // parts
            if batch % parts:
                continue
            signal = stop.signal()
            is_due = bool(signal or (period and step % period == 0 and step < self.steps))
            if is_due or step % CHECK_PERIOD == 0 or step == self.steps:
                loss = self._check(losses, epoch, batch)
                bar.set_postfix(epoch=epoch, loss=f"{loss:.3f}")
                bar.update((epoch - 1) * batches + batch - bar.n)
            if is_due:
                self._save(epoch - 1, step, losses.state())
            if signal:
                return None
        self._take_time("epoch_seconds", "wall_seconds")
        images_per_second = self.data.train.images_per_epoch / self.progress["epoch_seconds"]
        return {
            **losses.means(batches),
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": images_per_second,
        }

    def _train_batch(
        self, images: Tensor, labels: Tensor, epoch: int, sample: Tensor, losses: EpochLosses
    ) -> dict[str, Tensor]:
        numbers = sample.to(labels.device) if self.plain.takes_sample else None
        with self.accelerator.accumulate(self.classifier):
            values = self.classifier(images, labels, epoch, numbers)
            self.accelerator.backward(torch.stack(list(values.values())).sum())
            if not self.plain.student_learns(epoch):
                for parameter in self.plain.student.parameters():
                    parameter.grad = None  # else its weights would decay
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.average is not None and self.accelerator.sync_gradients:
                self.average.update_parameters(self.plain.student)
        losses.add(values)
        return values

    def _log_ratios(self, losses: dict[str, Tensor], epoch: int, labeled_share: float) -> None:
        """Once, in the first epoch in which all methods have their full weight.

        The batch has another share of labels than the average one that `loss_ce` is for.
        """
        methods = self.plain.weighted
        warmups = [math.ceil(weighted.warmup_steps) for weighted in methods.values()]
        if methods and epoch == max(1, *warmups):
            values = {name: float(losses[f"loss_{name.lower()}"].detach()) for name in methods}
            average = self.plain.labeled_share or 1.0
            own = float(losses["loss_ce"].detach()) * average / labeled_share
            log_ratios(own, values, methods, epoch, "DISTILL", logger)

    def _take_time(self, *keys: str) -> None:
        """Add the seconds since this was last called to the run's progress."""
        now = time.perf_counter()
        for key in keys:
            self.progress[key] += now - self._clock
        self._clock = now

    def _save(self, epoch: int, step: int = 0, losses: dict[str, Any] | None = None) -> None:
        """Save the state after that many epochs, and steps of the next one."""
        self._take_time("wall_seconds", *["epoch_seconds"] * bool(step))
        if not step:
            self.progress["train_seconds"] += self.progress["epoch_seconds"]
            self.progress["epoch_seconds"] = 0.0
        self.progress |= {"epoch": epoch, "step": step, "losses": losses or {}}
        self.states.save(self.progress)
        self._take_time("wall_seconds")

    def _set_learning_rate(self, epochs: float) -> None:
        factor = self.schedule(epochs / self.cfg.SOLVER.EPOCHS)
        for group in self.optimizer.param_groups:
            group["lr"] = self.cfg.SOLVER.LR * factor

    def _check(self, losses: EpochLosses, epoch: int, batch: int) -> float:
        """Stop before a state that is not finite replaces a good one; returns the last loss."""
        advice = f"{self.run.state_files.last_in_words}; try a lower SOLVER.LR"
        last = losses.check(epoch, batch, self.data.train.describe_batch, advice)
        norm = float(get_total_norm([weight.detach() for weight in self.classifier.parameters()]))
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"weights must be finite; got a norm of {norm} in epoch {epoch} after batch "
                f"{batch}; {advice}"
            )
        return last

    def _evaluate_end(self) -> None:
        """Test a resumed run that ends where it was, after an epoch that was not evaluated."""
        epoch, last = self.progress["epoch"], self.progress["last"]
        if self.progress["step"] or (last and last["epoch"] == epoch):
            return
        self._take_time()
        accuracy = self.testing.test_student(epoch, self.progress)
        self._save(epoch)
        logger.info("after epoch %d: top1 %.4g, top5 %.4g", epoch, *accuracy.values())

    def _stops_early(self) -> bool:
        """Whether the best result is TEST.PATIENCE evaluations old; says so."""
        patience, best = self.cfg.TEST.PATIENCE, self.progress["best"]
        if not patience or self.progress.get("waited", 0) < patience:
            return False
        logger.info(
            "Training ends %s: %d evaluations in a row gave no better top-1; the best one is %.2f "
            "after epoch %d",
            *(self.position, patience, best["top1"], best["epoch"]),
        )
        return True
