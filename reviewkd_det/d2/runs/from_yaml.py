"""A run's parts from a YAML config."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import COCOEvaluator, verify_results
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler as build_detectron2_scheduler
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from reviewkd_det.d2.data import CheckedDatasetMapper, build_train_loader
from reviewkd_det.d2.data.checks import check_classes
from reviewkd_det.d2.evaluation import FastCOCOEvaluator
from reviewkd_det.d2.runs.evaluation import evaluate, write_json
from reviewkd_det.d2.runs.trainer import Parts, RunSettings, Trainer
from reviewkd_det.d2.teacher.build import teacher_state
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from reviewkd_det.d2.weights.inherit import inherit

__all__ = [
    "build_evaluator",
    "build_lr_scheduler",
    "build_optimizer",
    "build_test_loader",
    "build_train_loader",
    "build_trainer",
    "evaluate_checkpoint",
    "train",
]


def build_trainer(cfg: CfgNode) -> Trainer:
    """Build what trains the config's detector; nothing is loaded yet.

    Raises:
        ValueError: a value of the config does not suit, or a data set has other classes.
    """
    cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
    model = build_model(cfg)
    logging.getLogger(__name__).info("Model:\n%s", model)
    optimizer = build_optimizer(cfg, model)
    train_loader = build_train_loader(cfg)
    check_classes(cfg, cfg.DATASETS.TRAIN)
    parts = Parts(
        model,
        optimizer,
        build_lr_scheduler(cfg, optimizer),
        train_loader,
        evaluate=lambda trained: evaluate(trained, _test_sets(cfg)),
        hooks=_precise_batch_norm(cfg, model),
        start_new=lambda student: _inherit(cfg, student),
    )
    return Trainer(parts, _settings(cfg))


def train(trainer: Trainer, cfg: CfgNode) -> None:
    """Train, and compare with the results that `TEST.EXPECTED_RESULTS` asks for."""
    results = trainer.train()
    if cfg.TEST.EXPECTED_RESULTS and comm.is_main_process():
        verify_results(cfg, results)


def evaluate_checkpoint(cfg: CfgNode) -> dict[str, Any]:
    """Evaluate `MODEL.WEIGHTS` on `DATASETS.TEST`; write `results.json` into the output folder.

    Raises:
        ValueError: the checkpoint cannot be read or lacks weights.
    """
    model = build_model(cfg)
    entry = cfg.MODEL.WEIGHTS_ENTRY
    VerifiedCheckpointer(model, key="MODEL.WEIGHTS", entry=entry).load(cfg.MODEL.WEIGHTS)
    results = evaluate(model, _test_sets(cfg))
    if comm.is_main_process():
        verify_results(cfg, results)
        write_json(Path(cfg.OUTPUT_DIR, "results.json"), results)
    return results


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that `SOLVER.OPTIMIZER` names, over everything that learns."""
    if cfg.SOLVER.OPTIMIZER == "SGD":
        return build_detectron2_optimizer(cfg, model)
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


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
    """Detectron2's, which anneals to a part of the learning rate that it divides by that."""
    name = cfg.SOLVER.LR_SCHEDULER_NAME
    if name == "WarmupCosineLR" and cfg.SOLVER.BASE_LR == 0:
        raise ValueError(f"SOLVER.BASE_LR must not be 0 with SOLVER.LR_SCHEDULER_NAME {name}")
    return build_detectron2_scheduler(cfg, optimizer)


def build_test_loader(cfg: CfgNode, dataset_name: str) -> Any:
    """Detectron2's loader with our mapper."""
    mapper = CheckedDatasetMapper(cfg, is_train=False)
    return build_detection_test_loader(cfg, dataset_name, mapper=mapper)


def build_evaluator(cfg: CfgNode, dataset_name: str) -> COCOEvaluator:
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


def _test_sets(cfg: CfgNode) -> Iterator[tuple[str, Any, COCOEvaluator]]:
    for name in cfg.DATASETS.TEST:
        loader = build_test_loader(cfg, name)  # which loads the data that the evaluator asks for
        yield name, loader, build_evaluator(cfg, name)


def _precise_batch_norm(cfg: CfgNode, model: nn.Module) -> list[hooks.HookBase]:
    if not (cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(model)):
        return []
    fewer = cfg.clone()
    fewer.defrost()
    fewer.DATALOADER.NUM_WORKERS = 0  # as Detectron2 does, to save memory
    loader, count = build_train_loader(fewer), cfg.TEST.PRECISE_BN.NUM_ITER
    return [hooks.PreciseBN(cfg.TEST.EVAL_PERIOD, model, loader, count)]


def _inherit(cfg: CfgNode, student: nn.Module) -> set[str]:
    """Let a new student take what `MODEL.DISTILL.INHERIT` names."""
    parts = cfg.MODEL.DISTILL.INHERIT
    return inherit(student, teacher_state(cfg), parts) if parts else set()


def _settings(cfg: CfgNode) -> RunSettings:
    freezing = [("MODEL.BACKBONE.FREEZE_AT", cfg.MODEL.BACKBONE.FREEZE_AT)]
    freezing.append(("MODEL.RESNETS.NORM", cfg.MODEL.RESNETS.NORM))
    return RunSettings(
        cfg.OUTPUT_DIR,
        cfg.SOLVER.MAX_ITER,
        cfg.MODEL.WEIGHTS,
        "MODEL.WEIGHTS",
        cfg.MODEL.WEIGHTS_ENTRY,
        Images(cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD),
        ConfigKeys(freezing=", ".join(f"{key} is {value}" for key, value in freezing)),
        mixed_precision=cfg.SOLVER.AMP.ENABLED,
        checkpoint_period=cfg.SOLVER.CHECKPOINT_PERIOD,
        checkpoints_to_keep=cfg.SOLVER.CHECKPOINTS_TO_KEEP,
        eval_period=cfg.TEST.EVAL_PERIOD,
        best_metric=cfg.TEST.BEST_METRIC,
    )
