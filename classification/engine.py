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
from tqdm import tqdm

from classification.build import build_classifier
from classification.data import Data
from classification.evaluation import evaluate
from classification.run_folder import RunFolder
from classification.schedule import build_schedule
from classification.weights import save_weights

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)
CHECK_PERIOD = 20  # steps between two looks at the losses, each of which waits for the device


class Trainer:
    """Train what a config describes, from its last state on where there is one.

    Args:
        cfg: as `load_config` reads it.
        accelerator: of this process.
        run: the run's folder.
        data: as `build_data` makes it.
    """

    def __init__(self, cfg: CfgNode, accelerator: Accelerator, run: RunFolder, data: Data) -> None:
        self.cfg = cfg
        self.accelerator = accelerator
        self.run = run
        self.data = data
        set_seed(cfg.SEED)
        classifier, self.student = build_classifier(cfg, len(data.class_names))
        optimizer = torch.optim.SGD(
            classifier.parameters(),
            lr=cfg.SOLVER.LR,
            momentum=cfg.SOLVER.MOMENTUM,
            nesterov=cfg.SOLVER.NESTEROV,
            weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        )
        self.schedule = build_schedule(cfg.SOLVER)
        classifier = classifier.to(memory_format=torch.channels_last)
        self.classifier, self.optimizer = accelerator.prepare(classifier, optimizer)
        self.plain = accelerator.unwrap_model(self.classifier)
        # What a resumed run goes on with, beside the state of model and optimiser.
        self.progress: dict[str, Any] = {
            "epoch": 0, "train_seconds": 0.0, "wall_seconds": 0.0, "last": None, "best": None,
            "teacher": None,
        }  # fmt: skip

    @property
    def description(self) -> str:
        """What is trained, with what, and where, in a line."""
        model, teacher = self.cfg.MODEL.NAME, self.cfg.TEACHER.NAME
        methods = " + ".join(self.cfg.DISTILL.METHODS)
        parameters = sum(p.numel() for p in self.student.parameters())
        source = f" by {methods} from {teacher}" if methods else " without a teacher"
        return (
            f"Training {model} ({parameters:,} parameters){source}, on "
            f"{self.accelerator.num_processes} x {self.accelerator.device.type}"
        )

    def train(self) -> dict[str, Any]:
        """Train to the last epoch, evaluate, and write the run's files.

        Returns:
            The content of `summary.json`.

        Raises:
            FloatingPointError: a loss is not finite; the last state is kept.
        """
        self.progress = self.run.load_state() or self.progress
        cfg, done = self.cfg, self.progress["epoch"]
        if done:
            logger.info("Going on after epoch %d", done)
        elif self.plain.teacher is not None:
            self._test_teacher()
        steps = len(self.data.train)
        bar = tqdm(
            total=cfg.SOLVER.EPOCHS * steps,
            initial=done * steps,
            unit="it",
            mininterval=1,
            disable=not self.accelerator.is_main_process,
        )
        for epoch in range(done + 1, cfg.SOLVER.EPOCHS + 1):
            start = time.perf_counter()
            metrics = self._train_epoch(epoch, bar)
            self.progress["epoch"] = epoch
            self.progress["train_seconds"] += time.perf_counter() - start
            if epoch % cfg.TEST.PERIOD == 0 or epoch == cfg.SOLVER.EPOCHS:
                metrics |= self._evaluate(epoch)
            self.progress["wall_seconds"] += time.perf_counter() - start
            self.run.save_state(self.progress)
            self.run.add_metrics({"epoch": epoch, **metrics})
            self.accelerator.log(metrics, step=epoch)
            shown = [f"{name} {value:.4g}" for name, value in metrics.items()]
            logger.info("epoch %d/%d: %s", epoch, cfg.SOLVER.EPOCHS, ", ".join(shown))
        bar.close()
        summary = self._summary()
        self.run.write_summary(summary)
        return summary

    def _test_teacher(self) -> None:
        """Weights that load are no teacher yet: a wrong mean or order of classes shows here."""
        test = self.data.test
        accuracy = evaluate(self.plain.classify_as_teacher, test, self.accelerator)
        self.progress["teacher"] = accuracy
        name, chance = self.cfg.TEACHER.NAME, 100 / len(self.data.class_names)
        logger.info("Teacher %s: top-1 %.2f, top-5 %.2f", name, accuracy["top1"], accuracy["top5"])
        if accuracy["top1"] < 2 * chance:
            logger.warning(
                "The teacher is hardly better than chance, %.2f: are TEACHER.MEAN, TEACHER.STD and "
                "the order of the classes those it was trained with?",
                chance,
            )

    def _train_epoch(self, epoch: int, bar: tqdm) -> dict[str, float]:
        """One pass over the training images; returns the mean losses and the speed."""
        self.classifier.train()
        self.data.train.set_epoch(epoch)
        start, steps = time.perf_counter(), len(self.data.train)
        parts = self.cfg.SOLVER.ACCUMULATION_STEPS  # of an optimiser step
        sums: dict[str, Tensor] = {}
        for step, (images, labels) in enumerate(self.data.train, start=1):
            self._set_learning_rate(epoch - 1 + (step - 1) // parts * parts / steps)
            with self.accelerator.accumulate(self.classifier):
                losses = self.classifier(images, labels, epoch)
                self.accelerator.backward(torch.stack(list(losses.values())).sum())
                self.optimizer.step()
                self.optimizer.zero_grad()
            values = {name: loss.detach() for name, loss in losses.items()}
            sums = {name: sums.get(name, 0) + value for name, value in values.items()}
            if step % CHECK_PERIOD == 0 or step == steps:
                self._check(sums, epoch, step)
                bar.set_postfix(epoch=epoch, loss=f"{sum(map(float, values.values())):.3f}")
                bar.update((epoch - 1) * steps + step - bar.n)
        totals = torch.stack(list(sums.values()))
        means = (self.accelerator.reduce(totals, "mean") / steps).tolist()
        seconds = time.perf_counter() - start
        return {
            **dict(zip(sums, means, strict=True)),
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": self.data.train.images_per_epoch / seconds,
        }

    def _set_learning_rate(self, epochs: float) -> None:
        factor = self.schedule(epochs / self.cfg.SOLVER.EPOCHS)
        for group in self.optimizer.param_groups:
            group["lr"] = self.cfg.SOLVER.LR * factor

    def _check(self, sums: dict[str, Tensor], epoch: int, step: int) -> None:
        """A loss that is not finite once makes its sum so for ever."""
        values = {name: float(value) for name, value in sums.items()}
        if not all(map(math.isfinite, values.values())):
            shown = ", ".join(f"{name} {value / step:.4g}" for name, value in values.items())
            raise FloatingPointError(
                f"losses must be finite; got a mean of {shown} in epoch {epoch} up to step {step}; "
                f"the last good state is in '{self.run.path}'; try a lower SOLVER.LR"
            )

    def _evaluate(self, epoch: int) -> dict[str, float]:
        """Test the student, and save it where it is the last or the best."""
        self.classifier.eval()
        accuracy = evaluate(self.plain.classify, self.data.test, self.accelerator)
        self.progress["last"] = {"epoch": epoch, **accuracy}
        best = self.progress["best"]
        is_best = best is None or accuracy["top1"] > best["top1"]
        if is_best:
            self.progress["best"] = self.progress["last"]
        if self.accelerator.is_main_process:
            for name in ["last", "best"] if is_best else ["last"]:
                save_weights(self._student_weights(), self.run.path / f"{name}.pth")
        return accuracy

    def _student_weights(self) -> dict[str, Tensor]:
        """The student's own state dict; where it is tapped, the traced copy holds its buffers."""
        return self.student.state_dict() | self.plain.student.net.state_dict()

    def _summary(self) -> dict[str, Any]:
        progress, cfg = self.progress, self.cfg
        images = progress["epoch"] * self.data.train.images_per_epoch
        return {
            "model": cfg.MODEL.NAME,
            "teacher": cfg.TEACHER.NAME if cfg.DISTILL.METHODS else "",
            "methods": list(cfg.DISTILL.METHODS),
            "data": cfg.DATA.NAME,
            "train_images": self.data.train.batches.length,
            "seed": cfg.SEED,
            "epochs": progress["epoch"],
            "teacher_top1": progress["teacher"] and progress["teacher"]["top1"],
            "top1": progress["last"]["top1"],
            "top5": progress["last"]["top5"],
            "last": progress["last"],
            "best": progress["best"],
            "parameters": sum(p.numel() for p in self.student.parameters()),
            "train_seconds": round(progress["train_seconds"], 2),
            "wall_seconds": round(progress["wall_seconds"], 2),
            "images_per_second": round(images / progress["train_seconds"], 1),
        }
