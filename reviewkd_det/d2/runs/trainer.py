"""Training: Detectron2's trainer with our data mapper, verified checkpoints and a run summary."""

import json
import logging
import math
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import COCOEvaluator, verify_results
from detectron2.solver import build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from torch import nn

from reviewkd_det.common.runs.random_state import restore_random_state
from reviewkd_det.common.tensors.memory import max_gpu_memory
from reviewkd_det.d2.data import CheckedDatasetMapper, build_train_loader
from reviewkd_det.d2.evaluation import FastCOCOEvaluator
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.runs.hooks import BestCheckpoint, SaveState
from reviewkd_det.d2.runs.launch import data_parallel, unwrapped
from reviewkd_det.d2.runs.not_finite import described_failures
from reviewkd_det.d2.teacher.build import teacher_state
from reviewkd_det.d2.weights.inherit import inherit

__all__ = ["Trainer", "run_files", "without_nan"]

# What a run writes into its folder, besides its log and config.
RUN_FILES = (
    "model_*.pth",
    "last_checkpoint",
    "metrics.json",
    "events.out.tfevents.*",
    "summary.json",
)


class Trainer(DefaultTrainer):
    """Train a plain detector or a `DistilledDetector`.

    What it adds to `DefaultTrainer`: `SOLVER.OPTIMIZER`, images that are checked when they are
    read, batches and random states that a resumed run goes on with, checkpoints that stay plain
    with the distiller's state beside the student's, several processes on the CPU, COCO evaluation,
    and `summary.json` in the output folder when training ends.
    """

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)  # DefaultTrainer's own wraps models for GPUs alone
        self.train_seconds = 0.0
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self._trainer = (AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer)(
            data_parallel(model), self.build_train_loader(cfg), optimizer
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        own_state = {"methods": model.methods} if getattr(model, "methods", None) else {}
        self.checkpointer = StudentCheckpointer(
            model, cfg.OUTPUT_DIR, key="MODEL.WEIGHTS", trainer=weakref.proxy(self), **own_state
        )
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks; ours save, last, so that nothing of the iteration is lost."""
        own = [x for x in super().build_hooks() if not isinstance(x, hooks.PeriodicCheckpointer)]
        solver, test = self.cfg.SOLVER, self.cfg.TEST
        if test.EVAL_PERIOD > 0 and comm.is_main_process():
            after_evaluation = (
                next(i for i, x in enumerate(own) if isinstance(x, hooks.EvalHook)) + 1
            )
            best = BestCheckpoint(test.EVAL_PERIOD, self.checkpointer, test.BEST_METRIC)
            own.insert(after_evaluation, best)
        save = SaveState(self.checkpointer, solver.CHECKPOINT_PERIOD, solver.CHECKPOINTS_TO_KEEP)
        return [*own, save]

    def resume_or_load(self, resume: bool = True) -> None:
        """Load as Detectron2 does; a new student then takes what `MODEL.DISTILL.INHERIT` names."""
        loaded = self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.iter + 1
            self.data_loader.skip(self.start_iter)
            restore_random_state(loaded.get("random_states", []))
        elif parts := self.cfg.MODEL.DISTILL.INHERIT:
            inherit(self.checkpointer.model, teacher_state(self.cfg), parts)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser that `SOLVER.OPTIMIZER` names, over everything that learns."""
        if cfg.SOLVER.OPTIMIZER == "SGD":
            return build_optimizer(cfg, model)
        if cfg.SOLVER.OPTIMIZER == "AdamW":
            parameters = get_default_optimizer_params(
                model,
                base_lr=cfg.SOLVER.BASE_LR,
                weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
                bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
                weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
            )
            optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
            return optimizer(
                parameters,
                lr=cfg.SOLVER.BASE_LR,
                weight_decay=cfg.SOLVER.WEIGHT_DECAY,
                # The fused step clips gradients that automatic mixed precision has still scaled.
                fused=not cfg.SOLVER.AMP.ENABLED,
            )
        raise ValueError(f"SOLVER.OPTIMIZER must be SGD or AdamW; got {cfg.SOLVER.OPTIMIZER}")

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """Detectron2's, which anneals to a part of the learning rate that it divides by that."""
        name = cfg.SOLVER.LR_SCHEDULER_NAME
        if name == "WarmupCosineLR" and cfg.SOLVER.BASE_LR == 0:
            raise ValueError(f"SOLVER.BASE_LR must not be 0 with SOLVER.LR_SCHEDULER_NAME {name}")
        return super().build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Batches with our mapper, joined by images without labels where there are any."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Detectron2's loader with our mapper."""
        return build_detection_test_loader(
            cfg, dataset_name, mapper=CheckedDatasetMapper(cfg, is_train=False)
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> COCOEvaluator:
        """Detectron2's COCO evaluator, with its predictions under `OUTPUT_DIR/inference`.

        Raises:
            ImportError: TEST.FAST_COCO_EVAL needs a package that is not installed.
            ValueError: the data set is not evaluated as COCO is.
        """
        kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
        if kind != "coco":
            raise ValueError(
                f"DATASETS.TEST must name data sets with COCO evaluation; got '{dataset_name}', "
                f"whose evaluator_type is {kind}"
            )
        evaluator = FastCOCOEvaluator if cfg.TEST.FAST_COCO_EVAL else COCOEvaluator
        return evaluator(dataset_name, output_dir=str(Path(cfg.OUTPUT_DIR, "inference")))

    @classmethod
    def evaluate(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Evaluate on `DATASETS.TEST`, write `results.json` into the output folder."""
        results = cls.test(cfg, model)
        if comm.is_main_process():
            verify_results(cfg, results)
            text = json.dumps(without_nan(results), indent=2)
            Path(cfg.OUTPUT_DIR, "results.json").write_text(text + "\n", encoding="utf-8")
        return results

    def run_step(self) -> None:
        """One iteration, timed."""
        start = time.perf_counter()
        with described_failures(self):
            super().run_step()
        self.train_seconds += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        """Detectron2's state and the time spent training."""
        return {**super().state_dict(), "train_seconds": self.train_seconds}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self.train_seconds = state_dict.get("train_seconds", 0.0)  # Detectron2's own has none

    def train(self) -> dict[str, Any] | None:
        """Train, evaluate, and write `summary.json`; return the results of the evaluation."""
        super().train()
        results = getattr(self, "_last_eval_results", None)
        if comm.is_main_process():
            self._write_summary(results)
        return results

    def _write_summary(self, results: dict[str, Any] | None) -> None:
        model = unwrapped(self.model)
        student = model.student if isinstance(model, DistilledDetector) else model
        summary = {
            "iterations": self.max_iter,
            "train_seconds": round(self.train_seconds, 2),
            "parameters": sum(p.numel() for p in student.parameters()),
            "max_memory_mb": max_gpu_memory(),
            "results": without_nan(results),
        }
        path = Path(self.cfg.OUTPUT_DIR, "summary.json")
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        logging.getLogger(__name__).info("Wrote %s", path)


def without_nan(results: Any) -> Any:
    """Evaluation results with None, JSON's null, for what could not be measured."""
    if isinstance(results, dict):
        return {name: without_nan(value) for name, value in results.items()}
    return None if isinstance(results, float) and math.isnan(results) else results


def run_files(output_dir: str) -> list[Path]:
    """The checkpoints, metrics and events of the run that an output folder holds."""
    return sorted(path for pattern in RUN_FILES for path in Path(output_dir).glob(pattern))
