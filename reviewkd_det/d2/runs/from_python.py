"""A run's parts from a Python config (LazyConfig), with Detectron2's own conventions."""

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog, build_detection_train_loader
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.registry import locate
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import OmegaConf
from torch import nn

from reviewkd_det.common.runs.trackers import flat_config
from reviewkd_det.d2.data import check_evaluable
from reviewkd_det.d2.data.checks import check_class_count, check_known
from reviewkd_det.d2.data.own_loader import OwnLoader
from reviewkd_det.d2.data.prepare import prepare_data
from reviewkd_det.d2.data.register import allow_malformed_masks
from reviewkd_det.d2.data.training import build_stream_loader
from reviewkd_det.d2.evaluation import FastCOCOEvaluator, counted_detections
from reviewkd_det.d2.runs.batch_statistics import TrainImages, check_batch_statistics
from reviewkd_det.d2.runs.best_metric import find_best_metric
from reviewkd_det.d2.runs.ema import average_of
from reviewkd_det.d2.runs.evaluation import evaluate, write_json
from reviewkd_det.d2.runs.options import check_options
from reviewkd_det.d2.runs.preflight import check_schedule
from reviewkd_det.d2.runs.python_use import read_use
from reviewkd_det.d2.runs.trainer import Parts, RunSettings, Trainer, TrainLoader
from reviewkd_det.d2.teacher.classes import (
    in_student_order,
    match_classes,
    teacher_classes,
    uses_logits,
)
from reviewkd_det.d2.teacher.source import read_teacher
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from reviewkd_det.d2.weights.inherit import inherit, inherited_names

__all__ = ["build_train_loader", "build_trainer", "check_data", "evaluate_checkpoint"]

TRAIN_NAMES, TEST_NAMES = "dataloader.train.dataset.names", "dataloader.test.dataset.names"
BATCH = "dataloader.train.total_batch_size"
STREAMED = {  # what of Detectron2's arguments a stream of batches takes
    "dataset", "mapper", "sampler", "total_batch_size", "aspect_ratio_grouping", "num_workers",
}  # fmt: skip
# Where Detectron2's detectors have the number of their detections of an image.
DETECTIONS = ("roi_heads.box_predictor.test_topk_per_image", "max_detections_per_image")
OPTIONS = ("accumulation_steps", "ema_decay", "patience", "eval_period")
MAP_KEY = "train.map_classes"
KEYS = ConfigKeys(
    "dataloader.train.mapper.image_format",
    "pixel_mean of model",
    "pixel_std of model",
    "stride_in_1x1 of model.backbone",
    "see freeze_at and norm of model.backbone",
)
ADVICE = "register your own with reviewkd_det.d2.data.register_coco_format"


def build_trainer(cfg: Any) -> Trainer:
    """Build what trains the config's model; nothing is loaded yet.

    Args:
        cfg: config with `model`, `optimizer`, `lr_multiplier`, `dataloader` and `train`.

    Raises:
        ValueError: a value of the config does not suit, or a data set has other classes.
    """
    settings = _settings(cfg)
    keys = {name: f"train.{name}" for name in OPTIONS}
    check_options(settings, keys, evaluates="evaluator" in cfg.dataloader)
    model = instantiate(cfg.model).to(cfg.train.device)
    logging.getLogger(__name__).info("Model:\n%s", model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    train_loader = build_train_loader(cfg.dataloader.train, settings.accumulation_steps)
    _check_classes(cfg, TRAIN_NAMES)
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
        start_new=lambda student: _inherit(cfg, student),
        ddp=cfg.train.ddp,
        average=average_of(model, settings.ema_decay),
    )
    settings = replace(settings, images=_images(cfg, getattr(model, "student", model)))
    return Trainer(parts, settings)


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


def check_data(cfg: Any, *, training: bool, resume: bool = False) -> list[str] | None:
    """Check what the config tells of its data before anything is built.

    Args:
        cfg: config with `dataloader`, `model` and `train`; where the classes of a teacher are
            mapped, its `class_order` is set.
        training: whether the run trains, and does not only evaluate.
        resume: whether it goes on with the run of its folder.

    Returns:
        The class names in the order of the model's class numbers; None where none are known.

    Raises:
        KeyError: a data set has no such name.
        ValueError: a file cannot be evaluated, has other classes than the model, or see
            `prepare_data`.
    """
    keys = (TRAIN_NAMES, TEST_NAMES) if training else (TEST_NAMES,)
    for key in keys:
        check_known(key, _names(cfg, key), ADVICE)
    train = _names(cfg, TRAIN_NAMES) if training else []
    test = _names(cfg, TEST_NAMES) if "evaluator" in cfg.dataloader else []
    use = read_use(cfg, train=train, test=test, training=training, resume=resume)
    if not use.masks:
        allow_malformed_masks([*use.train, *use.test])
    classes = prepare_data(use)
    if training and classes:
        _match_teacher(cfg, classes)
    if "evaluator" not in cfg.dataloader:
        return classes
    with_masks = OmegaConf.select(_student(cfg), "roi_heads.mask_head") is not None
    for name in _names(cfg, TEST_NAMES):
        check_evaluable(name, with_masks=with_masks)
    for key in keys:
        _check_classes(cfg, key)
    return classes


def _match_teacher(cfg: Any, classes: list[str]) -> None:
    """Compare the teacher's classes with the student's where methods compare logits."""
    teacher: Any = cfg.model.get("teacher") or {}
    if "config_file" in teacher and uses_logits(cfg.model.get("methods") or ()):
        what = f"model.methods {', '.join(cfg.model.methods)}"
        order = match_classes(
            classes, _teacher_classes(cfg), what, MAP_KEY, map_them=cfg.train.map_classes
        )
        if order:
            teacher.class_order = order


def _teacher_classes(cfg: Any) -> list[str] | None:
    teacher = cfg.model.teacher
    opts = list(teacher.get("opts") or ())
    return teacher_classes(teacher.config_file, teacher.get("weights", ""), opts)


def evaluate_checkpoint(cfg: Any) -> dict[str, Any]:
    """Evaluate the student with the weights of `train.init_checkpoint`; write `results.json`.

    Returns:
        The results; empty where the config has no evaluator.

    Raises:
        ValueError: the checkpoint cannot be read or lacks weights.
    """
    model = instantiate(_student(cfg)).to(cfg.train.device)
    key, entry = "train.init_checkpoint", cfg.train.init_checkpoint_entry
    VerifiedCheckpointer(model, key=key, entry=entry).load(cfg.train.init_checkpoint)
    if "evaluator" not in cfg.dataloader:
        return {}
    results = evaluate(model, _test_sets(cfg))
    if comm.is_main_process():
        write_json(Path(cfg.train.output_dir, "results.json"), results)
    return results


def _student(cfg: Any) -> Any:
    return cfg.model.student if "student" in cfg.model else cfg.model


def _names(cfg: Any, key: str) -> list[str]:
    """Names of data sets, where the config has them at a key."""
    names = OmegaConf.select(cfg, key)
    return [names] if isinstance(names, str) else list(names or ())


def _check_classes(cfg: Any, key: str) -> None:
    for place in ("roi_heads.num_classes", "num_classes"):
        count = OmegaConf.select(_student(cfg), place)
        if isinstance(count, int):
            inside = "student." if "student" in cfg.model else ""
            return check_class_count(f"model.{inside}{place}", count, _names(cfg, key))


def _test_sets(cfg: Any) -> Iterator[tuple[str, Any, DatasetEvaluator]]:
    if cfg.dataloader.evaluator.get("output_dir", "") is None:
        cfg.dataloader.evaluator.output_dir = str(Path(cfg.train.output_dir, "inference"))
    _count_all_detections(cfg)
    name = ", ".join(_names(cfg, TEST_NAMES)) or "dataloader.test"
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
    return TrainImages(BATCH, total, edge, longest, _names(cfg, TRAIN_NAMES), steps)


def _count_all_detections(cfg: Any) -> None:
    """Let a `COCOEvaluator` that is not told otherwise count what the student may detect."""
    target = cfg.dataloader.evaluator.get("_target_")
    kind = locate(target) if isinstance(target, str) else target
    told = cfg.dataloader.evaluator.get("max_dets_per_image") is not None
    if kind not in (COCOEvaluator, FastCOCOEvaluator) or told:
        return
    for place in DETECTIONS:
        per_image = OmegaConf.select(_student(cfg), place)
        if isinstance(per_image, int) and (count := counted_detections(per_image)):
            cfg.dataloader.evaluator.max_dets_per_image = count


def _inherit(cfg: Any, student: nn.Module) -> set[str]:
    """Let a new student take what `train.inherit` names."""
    teacher: Any = cfg.model.get("teacher") or {}
    if not cfg.train.inherit:
        return set()
    if "config_file" not in teacher:
        raise ValueError(
            "train.inherit must be empty without a model.teacher that has a config_file; "
            f"got {list(cfg.train.inherit)}"
        )
    opts = list(teacher.get("opts") or ())
    source = read_teacher(
        teacher.config_file, teacher.get("weights", ""), opts, teacher.get("weights_entry", "")
    )
    # A resumed run, which builds no teacher, draws the same as this one.
    with torch.random.fork_rng(devices=[]):
        state: Any = source.load_state()
    own, names = student.state_dict(), _names(cfg, TRAIN_NAMES)
    state = in_student_order(
        state,
        {name: own[name] for name in inherited_names(own, cfg.train.inherit)},
        MetadataCatalog.get(names[0]).get("thing_classes") if names else None,
        _teacher_classes(cfg),
        "train.inherit",
        MAP_KEY,
        map_them=cfg.train.map_classes,
    )
    return inherit(student, state, cfg.train.inherit, "train.inherit")


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
    test_sets = _names(cfg, TEST_NAMES)[:1]
    metric = find_best_metric(train.best_metric, "train.best_metric", test_sets, {})
    return RunSettings(
        train.output_dir,
        train.max_iter,
        train.init_checkpoint,
        "train.init_checkpoint",
        train.init_checkpoint_entry,
        Images(),  # of the model, which is not built yet
        KEYS,
        mixed_precision=train.amp.enabled,
        checkpoint_period=train.checkpointer.period,
        checkpoints_to_keep=train.checkpointer.get("max_to_keep") or 0,
        eval_period=train.eval_period,
        best_metric=metric,
        log_period=train.log_period,
        batch_key=BATCH,
        accumulation_steps=train.accumulation_steps,
        patience=train.patience,
        ema_decay=train.ema_decay,
        trackers=[train.trackers] if isinstance(train.trackers, str) else list(train.trackers),
        project=train.tracker_project,
        config=flat_config(OmegaConf.to_container(cfg)),  # type: ignore[arg-type]
    )
