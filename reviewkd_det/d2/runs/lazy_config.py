"""Reading a Python config (LazyConfig) of a run."""

import argparse
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from reviewkd_det.d2.data import use_for_builtin_coco
from reviewkd_det.d2.runs.start import find_last_checkpoint, find_seed, refuse_another_run

__all__ = ["read_lazy_config"]

SECTIONS = ("model", "optimizer", "lr_multiplier", "dataloader", "train")
# Keys of `train` that a config may leave out.
DEFAULTS = {
    "seed": -1,  # of every random choice; -1 draws one
    "best_metric": "bbox/AP",  # result whose highest value makes model_best.pth
    "init_checkpoint_entry": "",  # entry or prefix of that file; "" finds the student's
    "inherit": [],  # parts of the student that start with the teacher's weights
}
KINDS = {
    "train.device": str,
    "train.amp.enabled": bool,
    "train.output_dir": str,
    "train.seed": int,
    "train.best_metric": str,
}


def read_lazy_config(args: argparse.Namespace) -> Any:
    """Read a Python config as `read_config` reads a YAML one; `train.output_dir` is guarded.

    Raises:
        FileExistsError: see `read_config`.
        KeyError: an option changes a key that the config does not have.
        ValueError: the config lacks a part or a value, or an option cannot be applied.
    """
    use_for_builtin_coco()
    cfg = _apply_options(_load(args.config_file), args.opts)
    for key, kind in KINDS.items():
        is_section = OmegaConf.is_dict(OmegaConf.select(cfg, key.rpartition(".")[0]))
        value = OmegaConf.select(cfg, key) if is_section else None
        if not isinstance(value, kind):
            raise ValueError(f"{key} must be of type {kind.__name__}; got {value!r}")
    train = cfg.train
    if train.device.startswith("cuda") and not torch.cuda.is_available():
        train.device = "cpu"
    if train.amp.enabled and train.device == "cpu":
        raise ValueError("train.amp.enabled must be False on the CPU; got True")
    if args.eval_only:
        if args.resume:
            train.init_checkpoint = find_last_checkpoint(train.output_dir)
            train.init_checkpoint_entry = ""  # that of the file that the run began with
        train.output_dir = str(Path(train.output_dir, "evaluation"))
    elif not (args.resume or args.overwrite):
        refuse_another_run(train.output_dir)
    train.seed = find_seed(train.seed, train.output_dir, "train.seed", resume=args.resume)
    return cfg


def _load(config_file: str) -> Any:
    cfg = LazyConfig.load(config_file)
    lacking = [key for key in SECTIONS if key not in cfg]
    if lacking:
        raise ValueError(
            f"config must have {', '.join(SECTIONS)}; '{config_file}' lacks {lacking[0]}"
        )
    for key, value in DEFAULTS.items():
        if key not in cfg.train:
            cfg.train[key] = value
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
