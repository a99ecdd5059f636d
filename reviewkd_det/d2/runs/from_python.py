"""A run's parts from a Python config (LazyConfig), with Detectron2's own conventions."""

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.data import build_detection_train_loader
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.registry import locate
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import OmegaConf

from reviewkd_det.common.runs.trackers import flat_config
from reviewkd_det.d2.data.own_loader import OwnLoader
from reviewkd_det.d2.data.training import build_stream_loader
from reviewkd_det.d2.evaluation import FastCOCOEvaluator, counted_detections
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.runs.batch_statistics import TrainImages, check_batch_statistics
from reviewkd_det.d2.runs.best_metric import find_best_metric
from reviewkd_det.d2.runs.ema import average_of
from reviewkd_det.d2.runs.evaluation import evaluate, write_json
from reviewkd_det.d2.runs.new_student import inherit_from_python
from reviewkd_det.d2.runs.options import check_options
from reviewkd_det.d2.runs.preflight import check_schedule
from reviewkd_det.d2.runs.python_data import (
    TEST_NAMES,
    TRAIN_NAMES,
    check_head,
    dataset_names,
    listed_names,
    student_of,
)
from reviewkd_det.d2.runs.settings import YAML_KEYS, Parts, RunSettings, TrainLoader
from reviewkd_det.d2.runs.trainer import Trainer
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer

__all__ = ["build_train_loader", "build_trainer", "evaluate_checkpoint"]

BATCH = "dataloader.train.total_batch_size"
STREAMED = {  # what of Detectron2's arguments a stream of batches takes
    "dataset", "mapper", "sampler", "total_batch_size", "aspect_ratio_grouping", "num_workers",
}  # fmt: skip
# Where Detectron2's detectors have the number of their detections of an image.
DETECTIONS = ("roi_heads.box_predictor.test_topk_per_image", "max_detections_per_image")
# What a Python config calls the settings that error sentences name.
OPTION_KEYS = {
    **{name: f"train.{name}" for name in YAML_KEYS},
    "checkpoint_period": "train.checkpointer.period",
    "checkpoints_to_keep": "train.checkpointer.max_to_keep",
}
KEYS = ConfigKeys(
    "dataloader.train.mapper.image_format",
    "pixel_mean of model",
    "pixel_std of model",
    "stride_in_1x1 of model.backbone",
    "see freeze_at and norm of model.backbone",
)


def build_trainer(cfg: Any) -> Trainer:
    """Build what trains the config's model; nothing is loaded yet.

    Args:
        cfg: config with `model`, `optimizer`, `lr_multiplier`, `dataloader` and `train`.

    Raises:
        ValueError: a value of the config does not suit, or a data set has other classes.
    """
    settings = _settings(cfg)
    check_options(settings, evaluates="evaluator" in cfg.dataloader)
    _give_length(cfg)
    model = instantiate(cfg.model).to(cfg.train.device)
    logging.getLogger(__name__).info("Model:\n%s", model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    train_loader = build_train_loader(cfg.dataloader.train, settings.accumulation_steps)
    check_head(cfg, TRAIN_NAMES)
    check_batch_statistics(model, _train_images(cfg))
    scheduler = instantiate(cfg.lr_multiplier)
    if isinstance(scheduler, ParamScheduler):
        check_schedule(scheduler, cfg.train.max_iter, "lr_multiplier")
        scheduler = LRMultiplier(optimizer, scheduler, cfg.train.max_iter)
    has_evaluator = "evaluator" in cfg.dataloader
    parts = Parts(
        model,
        optimizer,
        scheduler,
        train_loader,
        evaluate=(lambda trained: evaluate(trained, _test_sets(cfg))) if has_evaluator else None,
        start_new=lambda student: inherit_from_python(cfg, student),
        ddp=cfg.train.ddp,
        average=average_of(model, settings.ema_decay),
    )
    settings = replace(settings, images=_images(cfg, getattr(model, "student", model)))
    return Trainer(parts, settings)


def _give_length(cfg: Any) -> None:
    """Let a detector that distils know the length of its training, unless it is told."""
    target = cfg.model.get("_target_")
    target = locate(target) if isinstance(target, str) else target
    if target is DistilledDetector and "max_iter" not in cfg.model:
        cfg.model.max_iter = cfg.train.max_iter


def build_train_loader(train: Any, accumulation_steps: int = 1) -> TrainLoader:
    """The training batches of `dataloader.train`.

    Detectron2's own loader becomes a stream that a resumed run goes on with at once; any other one
    is read again up to where the run was.

    Args:
        train: section of the config.
        accumulation_steps: batches of an optimiser step, which `total_batch_size` counts the images
            of. A loader of the config's own gives batches as it likes.
    """
    target = train.get("_target_")
    target = locate(target) if isinstance(target, str) else target
    if target is build_detection_train_loader and set(train) - {"_target_"} <= STREAMED:
        parts = {key: instantiate(train[key]) for key in train if key != "_target_"}
        if isinstance(parts["dataset"], list) and parts.get("mapper") is not None:
            return build_stream_loader(**parts, accumulation_steps=accumulation_steps)
        if accumulation_steps > 1:
            raise ValueError(
                "train.accumulation_steps must be 1 with a dataloader.train that has no list of "
                f"images and no mapper; got {accumulation_steps}"
            )
        return OwnLoader(build_detection_train_loader(**parts))
    return OwnLoader(instantiate(train))


def evaluate_checkpoint(cfg: Any) -> dict[str, Any]:
    """Evaluate the student with the weights of `train.init_checkpoint`; write `results.json`.

    Returns:
        The results; empty where the config has no evaluator.

    Raises:
        ValueError: the checkpoint cannot be read or lacks weights.
    """
    model = instantiate(student_of(cfg)).to(cfg.train.device)
    key, entry = "train.init_checkpoint", cfg.train.init_checkpoint_entry
    VerifiedCheckpointer(model, key=key, entry=entry).load(cfg.train.init_checkpoint)
    if "evaluator" not in cfg.dataloader:
        return {}
    results = evaluate(model, _test_sets(cfg))
    if comm.is_main_process():
        write_json(Path(cfg.train.output_dir, "results.json"), results)
    return results


def _test_sets(cfg: Any) -> Iterator[tuple[str, Any, DatasetEvaluator]]:
    if cfg.dataloader.evaluator.get("output_dir", "") is None:
        cfg.dataloader.evaluator.output_dir = str(Path(cfg.train.output_dir, "inference"))
    _count_all_detections(cfg)
    name = ", ".join(dataset_names(cfg, TEST_NAMES)) or "dataloader.test"
    yield name, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)


def _train_images(cfg: Any) -> TrainImages:
    edge, longest = 0, sys.maxsize
    for augmentation in OmegaConf.select(cfg, "dataloader.train.mapper.augmentations") or ():
        lengths = augmentation.get("short_edge_length")
        if lengths is not None:
            edge = lengths if isinstance(lengths, int) else min(lengths)
            longest = augmentation.get("max_size") or longest
    total = cfg.dataloader.train.get("total_batch_size") or 2 * comm.get_world_size()
    steps = cfg.train.accumulation_steps
    return TrainImages(BATCH, total, edge, longest, dataset_names(cfg, TRAIN_NAMES), steps)


def _count_all_detections(cfg: Any) -> None:
    """Let a `COCOEvaluator` that is not told otherwise count what the student may detect."""
    target = cfg.dataloader.evaluator.get("_target_")
    kind = locate(target) if isinstance(target, str) else target
    told = cfg.dataloader.evaluator.get("max_dets_per_image") is not None
    if kind not in (COCOEvaluator, FastCOCOEvaluator) or told:
        return
    for place in DETECTIONS:
        per_image = OmegaConf.select(student_of(cfg), place)
        if isinstance(per_image, int) and (count := counted_detections(per_image)):
            cfg.dataloader.evaluator.max_dets_per_image = count


def _images(cfg: Any, student: Any) -> Images:
    """How the config makes images, as far as it is Detectron2's."""
    mean, std = (getattr(student, name, None) for name in ("pixel_mean", "pixel_std"))
    return Images(
        OmegaConf.select(cfg, KEYS.format),
        mean.flatten().tolist() if isinstance(mean, torch.Tensor) else None,
        std.flatten().tolist() if isinstance(std, torch.Tensor) else None,
    )


def _settings(cfg: Any) -> RunSettings:
    train = cfg.train
    # All test sets are one loader's, whose results are not by set.
    test_sets = dataset_names(cfg, TEST_NAMES)[:1]
    metric = find_best_metric(train.best_metric, "train.best_metric", test_sets, {})
    return RunSettings(
        train.output_dir,
        train.max_iter,
        train.init_checkpoint,
        "train.init_checkpoint",
        train.init_checkpoint_entry,
        Images(),  # of the model, which is not built yet
        KEYS,
        precision=train.amp.precision if train.amp.enabled else "float32",
        checkpoint_period=train.checkpointer.period,
        checkpoints_to_keep=train.checkpointer.get("max_to_keep") or 0,
        eval_period=train.eval_period,
        best_metric=metric,
        log_period=train.log_period,
        batch_key=BATCH,
        accumulation_steps=train.accumulation_steps,
        patience=train.patience,
        ema_decay=train.ema_decay,
        trackers=listed_names(train.trackers),
        project=train.tracker_project,
        config=flat_config(OmegaConf.to_container(cfg)),  # type: ignore[arg-type]
        option_keys=OPTION_KEYS,
    )
