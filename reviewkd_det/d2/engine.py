"""Training: Detectron2's trainer with our data mapper, verified checkpoints and a run summary."""

import json
import logging
import math
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import COCOEvaluator, verify_results
from detectron2.solver import build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from reviewkd_det.d2.checkpoint import StudentCheckpointer
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.data import (
    CheckedDatasetMapper,
    JoinedLoader,
    build_unlabeled_loader,
    check_evaluable,
)
from reviewkd_det.d2.fast_evaluation import FastCOCOEvaluator, fast_coco_eval
from reviewkd_det.d2.inherit import inherit
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.teacher import teacher_state

__all__ = ["Trainer", "check_classes", "check_data", "run_files", "without_nan"]

# What a run writes into its folder, besides its log and config.
RUN_FILES = (
    "model_*.pth",
    "last_checkpoint",
    "metrics.json",
    "events.out.tfevents.*",
    "summary.json",
)

CLASS_KEYS = {
    "GeneralizedRCNN": ("ROI_HEADS", "NUM_CLASSES"),
    "PanopticFPN": ("ROI_HEADS", "NUM_CLASSES"),
    "RetinaNet": ("RETINANET", "NUM_CLASSES"),
}


class Trainer(DefaultTrainer):
    """Train a plain detector or a `DistilledDetector`.

    What it adds to `DefaultTrainer`: `SOLVER.OPTIMIZER`, images that are checked when they are
    read, checkpoints that stay plain with the distiller's state beside the student's, COCO
    evaluation, and `summary.json` in the output folder when training ends.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.train_seconds = 0.0
        super().__init__(cfg)

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks, around a checkpointer that is ours."""
        model = _unwrapped(self.model)
        own_state: dict[str, Any] = {}
        if getattr(model, "methods", None):
            own_state["methods"] = model.methods
        self.checkpointer = StudentCheckpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            key="MODEL.WEIGHTS",
            trainer=weakref.proxy(self),
            **own_state,
        )
        return super().build_hooks()

    def resume_or_load(self, resume: bool = True) -> None:
        """Load as Detectron2 does; a new student then takes what `MODEL.DISTILL.INHERIT` names."""
        super().resume_or_load(resume)
        parts = self.cfg.MODEL.DISTILL.INHERIT
        if parts and not (resume and self.checkpointer.has_checkpoint()):
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
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Detectron2's loader with our mapper, and images without labels where there are any."""
        loader = build_detection_train_loader(cfg, mapper=CheckedDatasetMapper(cfg, is_train=True))
        if not cfg.DATASETS.UNLABELED or not cfg.MODEL.DISTILL.METHODS:
            return loader  # images without labels have nothing to teach a plain student
        return JoinedLoader(loader, build_unlabeled_loader(cfg))

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
        model = _unwrapped(self.model)
        student = model.student if isinstance(model, DistilledDetector) else model
        summary = {
            "iterations": self.max_iter,
            "train_seconds": round(self.train_seconds, 2),
            "parameters": sum(p.numel() for p in student.parameters()),
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


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def check_data(cfg: CfgNode, *, training: bool) -> None:
    """Check before anything is built that the data sets are known and can be evaluated.

    Raises:
        ImportError: see `Trainer.build_evaluator`.
        KeyError: a data set has no such name.
        ValueError: none is named, or a file cannot be evaluated.
    """
    wanted = {"DATASETS.TEST": cfg.DATASETS.TEST}
    if training:
        wanted["DATASETS.TRAIN"] = cfg.DATASETS.TRAIN
        wanted["DATASETS.UNLABELED"] = cfg.DATASETS.UNLABELED
    for key, names in wanted.items():
        if not names and (key == "DATASETS.TRAIN" or not training):
            raise ValueError(f"{key} must name a data set; got none")
        for name in names:
            if name not in DatasetCatalog.list():
                raise KeyError(
                    f"{key} must name registered data sets; got '{name}'; "
                    "name your own in DATASETS.COCO_FORMAT"
                )
    if training:
        _check_unlabeled(cfg)
    if cfg.TEST.FAST_COCO_EVAL:
        fast_coco_eval()
    for name in cfg.DATASETS.TEST:
        check_evaluable(name, with_masks=cfg.MODEL.MASK_ON)
    check_classes(cfg, cfg.DATASETS.TEST)


def _check_unlabeled(cfg: CfgNode) -> None:
    count, methods = cfg.SOLVER.UNLABELED_PER_BATCH, cfg.MODEL.DISTILL.METHODS
    if count and not cfg.DATASETS.UNLABELED:
        raise ValueError(
            f"SOLVER.UNLABELED_PER_BATCH must be 0 without DATASETS.UNLABELED; got {count}"
        )
    if cfg.DATASETS.UNLABELED and methods and "ReviewKD" not in methods:
        raise ValueError(
            "MODEL.DISTILL.METHODS must have ReviewKD, which needs no labels, with "
            f"DATASETS.UNLABELED; got {', '.join(methods)}"
        )


def check_classes(cfg: CfgNode, dataset_names: Sequence[str]) -> None:
    """Check that loaded data sets have as many classes as the student.

    Raises:
        ValueError: one has another number.
    """
    keys = CLASS_KEYS.get(plain_config(cfg).MODEL.META_ARCHITECTURE)
    for name in dataset_names:
        classes = MetadataCatalog.get(name).get("thing_classes")
        if keys is None or classes is None:
            continue
        count = cfg.MODEL[keys[0]][keys[1]]
        if count != len(classes):
            raise ValueError(
                f"MODEL.{'.'.join(keys)} must be the number of classes of '{name}', "
                f"{len(classes)}; got {count}"
            )
