"""Reading a Python config (LazyConfig) of a run."""

import argparse
from numbers import Real
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from reviewkd_det.d2.compat import load_python_config
from reviewkd_det.d2.data import use_for_builtin_coco
from reviewkd_det.d2.runs.device import usable_device
from reviewkd_det.d2.runs.evaluated import find_evaluated
from reviewkd_det.d2.runs.mixed_precision import settle_precision
from reviewkd_det.d2.runs.preflight import check_pictures
from reviewkd_det.d2.runs.resuming import settle_python_resume
from reviewkd_det.d2.runs.start import find_seed, guard_folder, note

__all__ = ["load_lazy_config", "read_lazy_config"]

SECTIONS = ("model", "optimizer", "lr_multiplier", "dataloader", "train")
# Keys of `train` that a config may leave out.
DEFAULTS = {
    "seed": -1,  # of every random choice; -1 draws one
    "amp.precision": "auto",  # as SOLVER.AMP.PRECISION
    "best_metric": "bbox/AP",  # result whose highest value makes model_best.pth
    "init_checkpoint_entry": "",  # entry or prefix of that file; "" finds the student's
    "inherit": [],  # parts of the student that start with the teacher's weights
    "resume_with_changes": False,  # go on with another teacher or other training data
    "accumulation_steps": 1,  # parts that the images of an optimiser step are computed in
    "ema_decay": 0.0,  # of an average of the student's weights; 0 makes none
    "patience": 0,  # evaluations without a better best_metric after which training ends; 0: none
    "trackers": [],  # where the metrics go as well: "wandb", "mlflow"
    "tracker_project": "",  # their project or experiment
    "check_data": "full",  # as DATASETS.CHECK
    "map_classes": False,  # as DATASETS.MAP_CLASSES
}
KINDS = {
    "train.device": str,
    "train.amp.enabled": bool,
    "train.amp.precision": str,
    "train.output_dir": str,
    "train.max_iter": int,
    "train.eval_period": int,
    "train.log_period": int,
    "train.checkpointer.period": int,
    "train.seed": int,
    "train.best_metric": str,
    "train.resume_with_changes": bool,
    "train.accumulation_steps": int,
    "train.ema_decay": Real,
    "train.patience": int,
    "train.tracker_project": str,
    "train.check_data": str,
    "train.map_classes": bool,
}


def read_lazy_config(args: argparse.Namespace) -> Any:
    """Read a Python config as `read_config` reads a YAML one; `train.output_dir` is guarded.

    Raises:
        FileExistsError: see `read_config`.
        KeyError: an option changes a key that the config does not have.
        ValueError: the config lacks a part or a value, or an option cannot be applied.
    """
    cfg = load_lazy_config(args.config_file, args.opts)
    for key, kind in KINDS.items():
        is_section = OmegaConf.is_dict(OmegaConf.select(cfg, key.rpartition(".")[0]))
        value = OmegaConf.select(cfg, key) if is_section else None
        if not isinstance(value, kind):
            raise ValueError(f"{key} must be of type {kind.__name__}; got {value!r}")
    train = cfg.train
    train.device = usable_device(train.device, "train.device")
    if not args.eval_only:
        for key in ("model.vis_period", "model.student.vis_period"):
            check_pictures(OmegaConf.select(cfg, key, default=0) or 0, key)
    if train.amp.enabled:
        key = "train.amp.precision"
        train.amp.precision = settle_precision(train.amp.precision, train.device, key)
    if args.eval_only:
        given = [option.partition("=")[0] for option in args.opts]
        weights = "train.init_checkpoint", train.init_checkpoint
        output = "train.output_dir", train.output_dir
        found = find_evaluated(args.config_file, given, weights, output, resume=args.resume)
        is_other = found.weights != train.init_checkpoint
        if is_other and "train.init_checkpoint_entry" not in given:
            train.init_checkpoint_entry = ""  # that of the file that the run began with
        train.init_checkpoint, train.output_dir = found.weights, found.output_dir
        note(args, found.line, is_warning=found.is_warning)
    else:
        guard_folder(args, train.output_dir, lambda: settle_python_resume(cfg))
    train.seed = find_seed(train.seed, train.output_dir, "train.seed", resume=args.resume)
    return cfg


def load_lazy_config(config_file: str, options: list[str]) -> Any:
    """Read a Python config, or what a run of one has saved, with options over it.

    Raises:
        KeyError: an option changes a key that the config does not have.
        ValueError: the config lacks a part, or an option cannot be applied.
    """
    use_for_builtin_coco()
    return _apply_options(_load(config_file), options)


def _load(config_file: str) -> Any:
    cfg = load_python_config(config_file)
    lacking = [key for key in SECTIONS if key not in cfg]
    if lacking:
        raise ValueError(
            f"config must have {', '.join(SECTIONS)}; '{config_file}' lacks {lacking[0]}"
        )
    for key, value in DEFAULTS.items():
        OmegaConf.update(cfg, f"train.{key}", OmegaConf.select(cfg, f"train.{key}", default=value))
    return cfg


def _apply_options(cfg: Any, options: list[str]) -> Any:
    for option in options:
        key = option.partition("=")[0]
        if not key.startswith(("+", "~")) and OmegaConf.select(cfg, key, default=None) is None:
            raise KeyError(f"option must change a key that the config has; got {option}")
    keys = [option.partition("=")[0] for option in options]
    if "train.init_checkpoint" in keys and "train.init_checkpoint_entry" not in keys:
        options = [*options, "train.init_checkpoint_entry=''"]  # that of the config's own file
    try:
        return LazyConfig.apply_overrides(cfg, options)
    except Exception as error:  # of hydra's and omegaconf's own kinds
        given, reason = " ".join(options), str(error).partition("\n")[0]
        raise ValueError(f"options must be path.key=value; got {given}: {reason}") from error
