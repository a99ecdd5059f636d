"""A run's parts from a YAML config."""

import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from reviewkd_det.common import replace_file
from reviewkd_det.common.runs.trackers import flat_config
from reviewkd_det.d2.backbone_only import is_backbone_only
from reviewkd_det.d2.data import CheckedDatasetMapper, build_train_loader
from reviewkd_det.d2.data.checks import check_classes
from reviewkd_det.d2.data.same_size import SameSizeBatches
from reviewkd_det.d2.evaluators import build_evaluator, results_of
from reviewkd_det.d2.registered import build_model
from reviewkd_det.d2.runs.augmented import evaluate_augmented, joined
from reviewkd_det.d2.runs.batch_statistics import TrainImages, check_batch_statistics
from reviewkd_det.d2.runs.best_metric import COCO_METRICS, OTHERS, find_best_metric
from reviewkd_det.d2.runs.ema import average_of
from reviewkd_det.d2.runs.evaluation import evaluate, write_json
from reviewkd_det.d2.runs.launch import unwrapped
from reviewkd_det.d2.runs.mixed_precision import step_precision
from reviewkd_det.d2.runs.new_student import inherit_from_yaml
from reviewkd_det.d2.runs.options import check_options
from reviewkd_det.d2.runs.settings import Parts, RunSettings
from reviewkd_det.d2.runs.solver import build_lr_scheduler, build_optimizer
from reviewkd_det.d2.runs.trainer import Trainer
from reviewkd_det.d2.teacher.precision import AUTO_PRECISION
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer

__all__ = [
    "build_evaluator",
    "build_test_loader",
    "build_train_loader",
    "build_trainer",
    "evaluate_checkpoint",
    "keep_precision",
    "train",
]


def build_trainer(cfg: CfgNode) -> Trainer:
    """Build what trains the config's detector; nothing is loaded yet.

    Raises:
        ValueError: a value of the config does not suit, or a data set has other classes.
    """
    cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
    settings = _settings(cfg)
    check_options(settings, evaluates=bool(cfg.DATASETS.TEST))
    model = build_model(cfg)
    logging.getLogger(__name__).info("Model:\n%s", model)
    optimizer = build_optimizer(cfg, model)
    train_loader = build_train_loader(cfg)
    check_classes(cfg, cfg.DATASETS.TRAIN)
    check_batch_statistics(model, _train_images(cfg))
    average = average_of(model, cfg.SOLVER.EMA_DECAY)
    parts = Parts(
        model,
        optimizer,
        build_lr_scheduler(cfg, optimizer),
        train_loader,
        evaluate=lambda trained: evaluate(trained, _test_sets(cfg)),
        evaluate_end=lambda trained: evaluate_augmented(cfg, trained, _test_sets),
        hooks=_precise_batch_norm(cfg, model if average is None else average.module),
        start_new=lambda student: inherit_from_yaml(cfg, student),
        average=average,
        # Without a head nothing needs the levels of a pyramid that no method reads.
        ddp={"find_unused_parameters": True} if is_backbone_only(cfg) else None,
    )
    return Trainer(parts, settings)


def keep_precision(cfg: CfgNode, model: nn.Module) -> None:
    """Write the precision that was chosen for the teacher into the config and its saved file.

    Args:
        cfg: config of the run, frozen.
        model: what is trained; in several processes as they wrap it.
    """
    teacher = getattr(unwrapped(model), "teacher", None)
    if cfg.MODEL.DISTILL.TEACHER.PRECISION != AUTO_PRECISION or teacher is None:
        return
    cfg.defrost()
    cfg.MODEL.DISTILL.TEACHER.PRECISION = teacher.module.precision_name
    cfg.freeze()
    if comm.is_main_process():
        path = Path(cfg.OUTPUT_DIR, "config.yaml")
        replace_file(path, lambda part: part.write_text(cfg.dump(), encoding="utf-8"))


def train(trainer: Trainer, cfg: CfgNode) -> None:
    """Train, and compare with the results that `TEST.EXPECTED_RESULTS` asks for."""
    results = trainer.train()
    if cfg.TEST.EXPECTED_RESULTS and comm.is_main_process() and not trainer.is_finished:
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
    results = joined(results, evaluate_augmented(cfg, model, _test_sets))
    if comm.is_main_process():
        verify_results(cfg, results)
        write_json(Path(cfg.OUTPUT_DIR, "results.json"), results)
    return results


def build_test_loader(cfg: CfgNode, dataset_name: str) -> Any:
    """Detectron2's loader with our mapper, in batches of `TEST.IMS_PER_BATCH`."""
    mapper = CheckedDatasetMapper(cfg, is_train=False)
    loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
    return SameSizeBatches(loader, cfg.TEST.IMS_PER_BATCH)


def _test_sets(cfg: CfgNode) -> Iterator[tuple[str, Any, DatasetEvaluator]]:
    for name in cfg.DATASETS.TEST:
        loader = build_test_loader(cfg, name)  # which loads the data that the evaluator asks for
        yield name, loader, build_evaluator(cfg, name)


def _precise_batch_norm(cfg: CfgNode, model: nn.Module) -> list[hooks.HookBase]:
    if not (cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(model)):
        return []
    fewer = cfg.clone()
    fewer.defrost()
    fewer.DATALOADER.NUM_WORKERS = 0  # as Detectron2 does, to save memory
    if cfg.SOLVER.EMA_DECAY:
        fewer.DATASETS.UNLABELED = ()  # the average is of the student alone
    loader, count = build_train_loader(fewer), cfg.TEST.PRECISE_BN.NUM_ITER
    return [hooks.PreciseBN(cfg.TEST.EVAL_PERIOD, model, loader, count)]


def _train_images(cfg: CfgNode) -> TrainImages:
    unlabeled = cfg.SOLVER.UNLABELED_PER_BATCH if cfg.MODEL.DISTILL.METHODS else 0
    return TrainImages(
        "SOLVER.IMS_PER_BATCH",
        cfg.SOLVER.IMS_PER_BATCH + (unlabeled if cfg.DATASETS.UNLABELED else 0),
        0 if cfg.INPUT.CROP.ENABLED else min(cfg.INPUT.MIN_SIZE_TRAIN),
        cfg.INPUT.MAX_SIZE_TRAIN,
        cfg.DATASETS.TRAIN,
        cfg.SOLVER.ACCUMULATION_STEPS,
    )


def _tasks(cfg: CfgNode) -> dict[str, Collection[str]]:
    """The results that evaluations will have; empty where none are compared."""
    tasks: dict[str, Collection[str]] = {}
    for name in cfg.DATASETS.TEST if cfg.TEST.EVAL_PERIOD > 0 else ():
        is_coco = MetadataCatalog.get(name).get("evaluator_type") == "coco"
        for task, main in results_of(cfg, name).items():
            known = COCO_METRICS.get(task) if is_coco else None
            tasks[task] = known or (main, OTHERS)
    return tasks


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
        precision=step_precision(cfg),
        checkpoint_period=cfg.SOLVER.CHECKPOINT_PERIOD,
        checkpoints_to_keep=cfg.SOLVER.CHECKPOINTS_TO_KEEP,
        eval_period=cfg.TEST.EVAL_PERIOD if cfg.DATASETS.TEST else 0,
        best_metric=find_best_metric(
            cfg.TEST.BEST_METRIC, "TEST.BEST_METRIC", cfg.DATASETS.TEST, _tasks(cfg)
        ),
        accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
        patience=cfg.TEST.PATIENCE,
        ema_decay=cfg.SOLVER.EMA_DECAY,
        trackers=cfg.TRACKERS,
        project=cfg.TRACKER_PROJECT,
        config=flat_config(cfg),
    )
