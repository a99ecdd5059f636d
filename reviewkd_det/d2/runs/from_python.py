"""A run's parts from a Python config (LazyConfig), with Detectron2's own conventions."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.data import build_detection_train_loader
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.registry import locate
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import OmegaConf
from torch import nn

from reviewkd_det.d2.data import check_evaluable
from reviewkd_det.d2.data.checks import check_class_count, check_known
from reviewkd_det.d2.data.own_loader import OwnLoader
from reviewkd_det.d2.data.training import build_stream_loader
from reviewkd_det.d2.runs.evaluation import evaluate, write_json
from reviewkd_det.d2.runs.trainer import Parts, RunSettings, Trainer, TrainLoader
from reviewkd_det.d2.teacher.source import read_teacher
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from reviewkd_det.d2.weights.inherit import inherit

__all__ = ["build_train_loader", "build_trainer", "check_data", "evaluate_checkpoint"]

TRAIN_NAMES, TEST_NAMES = "dataloader.train.dataset.names", "dataloader.test.dataset.names"
STREAMED = {  # what of Detectron2's arguments a stream of batches takes
    "dataset", "mapper", "sampler", "total_batch_size", "aspect_ratio_grouping", "num_workers",
}  # fmt: skip
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
    model = instantiate(cfg.model).to(cfg.train.device)
    logging.getLogger(__name__).info("Model:\n%s", model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    train_loader = build_train_loader(cfg.dataloader.train)
    _check_classes(cfg, TRAIN_NAMES)
    scheduler = instantiate(cfg.lr_multiplier)
    if isinstance(scheduler, ParamScheduler):
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
    )
    return Trainer(parts, _settings(cfg, getattr(model, "student", model)))


def build_train_loader(train: Any) -> TrainLoader:
    """The training batches of `dataloader.train`.

    Detectron2's own loader becomes a stream that a resumed run goes on with at once; any other one
    is read again up to where the run was.
    """
    target = train.get("_target_")
    target = locate(target) if isinstance(target, str) else target
    if target is build_detection_train_loader and set(train) - {"_target_"} <= STREAMED:
        parts = {key: instantiate(train[key]) for key in train if key != "_target_"}
        if isinstance(parts["dataset"], list) and parts.get("mapper") is not None:
            return build_stream_loader(**parts)
        return OwnLoader(build_detection_train_loader(**parts))
    return OwnLoader(instantiate(train))


def check_data(cfg: Any, *, training: bool) -> None:
    """Check what the config tells of its data before anything is built.

    Raises:
        KeyError: a data set has no such name.
        ValueError: a file cannot be evaluated, or has other classes than the model.
    """
    for key in (TRAIN_NAMES, TEST_NAMES) if training else (TEST_NAMES,):
        check_known(key, _names(cfg, key), ADVICE)
    if "evaluator" not in cfg.dataloader:
        return
    with_masks = OmegaConf.select(_student(cfg), "roi_heads.mask_head") is not None
    for name in _names(cfg, TEST_NAMES):
        check_evaluable(name, with_masks=with_masks)
    _check_classes(cfg, TEST_NAMES)


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
    name = ", ".join(_names(cfg, TEST_NAMES)) or "dataloader.test"
    yield name, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)


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
        state = source.load_state()
    return inherit(student, state, cfg.train.inherit, "train.inherit")


def _images(cfg: Any, student: Any) -> Images:
    """How the config makes images, as far as it is Detectron2's."""
    mean, std = (getattr(student, name, None) for name in ("pixel_mean", "pixel_std"))
    return Images(
        OmegaConf.select(cfg, KEYS.format),
        mean.flatten().tolist() if isinstance(mean, torch.Tensor) else None,
        std.flatten().tolist() if isinstance(std, torch.Tensor) else None,
    )


def _settings(cfg: Any, student: nn.Module) -> RunSettings:
    train = cfg.train
    return RunSettings(
        train.output_dir,
        train.max_iter,
        train.init_checkpoint,
        "train.init_checkpoint",
        train.init_checkpoint_entry,
        _images(cfg, student),
        KEYS,
        mixed_precision=train.amp.enabled,
        checkpoint_period=train.checkpointer.period,
        checkpoints_to_keep=train.checkpointer.get("max_to_keep") or 0,
        eval_period=train.eval_period,
        best_metric=train.best_metric,
        log_period=train.log_period,
    )
