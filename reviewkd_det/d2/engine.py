"""Training: Detectron2's trainer with our data mapper, verified checkpoints and a run summary."""

import json
import logging
import time
import weakref
from collections.abc import Mapping
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
from detectron2.evaluation import COCOEvaluator
from detectron2.solver import build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from reviewkd_det.d2.checkpoint import StudentCheckpointer
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.data import CheckedDatasetMapper, check_evaluable
from reviewkd_det.d2.meta_arch import DistilledDetector

__all__ = ["Trainer", "check_data", "run_files"]

# What a run writes into its folder, besides its log and config.
RUN_FILES = ("*.pth", "last_checkpoint", "metrics.json", "events.out.tfevents.*", "summary.json")

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

    Args:
        cfg: the config.
        overwrite: whether to delete what another run left in the output folder, once everything
            of this one has been built.
    """

    def __init__(self, cfg: CfgNode, *, overwrite: bool = False) -> None:
        self.train_seconds = 0.0
        self.overwrite = overwrite
        super().__init__(cfg)

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks, around a checkpointer that is ours."""
        if self.overwrite and comm.is_main_process():
            for path in run_files(self.cfg.OUTPUT_DIR):
                path.unlink()
        model = _unwrapped(self.model)
        own_state = {"methods": model.methods} if getattr(model, "methods", None) else {}
        self.checkpointer = StudentCheckpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            key="MODEL.WEIGHTS",
            trainer=weakref.proxy(self),
            **own_state,
        )
        return super().build_hooks()

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
                fused=True,
            )
        raise ValueError(f"SOLVER.OPTIMIZER must be SGD or AdamW; got {cfg.SOLVER.OPTIMIZER}")

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Detectron2's loader with our mapper."""
        return build_detection_train_loader(cfg, mapper=CheckedDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Detectron2's loader with our mapper."""
        return build_detection_test_loader(
            cfg, dataset_name, mapper=CheckedDatasetMapper(cfg, is_train=False)
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> COCOEvaluator:
        """Detectron2's COCO evaluator, with its predictions under `OUTPUT_DIR/inference`."""
        return COCOEvaluator(dataset_name, output_dir=str(Path(cfg.OUTPUT_DIR, "inference")))

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
        self.train_seconds = state_dict["train_seconds"]

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
            "results": results,
        }
        path = Path(self.cfg.OUTPUT_DIR, "summary.json")
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        logging.getLogger(__name__).info("Wrote %s", path)


def run_files(output_dir: str) -> list[Path]:
    """The checkpoints, metrics and events of the run that an output folder holds."""
    return sorted(path for pattern in RUN_FILES for path in Path(output_dir).glob(pattern))


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def check_data(cfg: CfgNode, *, training: bool) -> None:
    """Load the data sets once, so that what is wrong with them shows before training.

    Raises:
        KeyError: a data set has no such name.
        ValueError: a file is bad, or its classes are not as many as the student's.
    """
    for name in [*(cfg.DATASETS.TRAIN if training else ()), *cfg.DATASETS.TEST]:
        if name not in DatasetCatalog.list():
            raise KeyError(
                f"DATASETS.TRAIN and DATASETS.TEST must name registered data sets; got '{name}'; "
                "name your own in DATASETS.COCO_FORMAT"
            )
        if name in cfg.DATASETS.TEST:
            check_evaluable(name, with_masks=cfg.MODEL.MASK_ON)
        else:
            DatasetCatalog.get(name)
        _check_classes(cfg, name)


def _check_classes(cfg: CfgNode, name: str) -> None:
    keys = CLASS_KEYS.get(plain_config(cfg).MODEL.META_ARCHITECTURE)
    classes = MetadataCatalog.get(name).get("thing_classes")
    if keys is None or classes is None:
        return
    count = cfg.MODEL[keys[0]][keys[1]]
    if count != len(classes):
        raise ValueError(
            f"MODEL.{'.'.join(keys)} must be the number of classes of '{name}', "
            f"{len(classes)}; got {count}"
        )
