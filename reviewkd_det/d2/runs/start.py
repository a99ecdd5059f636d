"""What the scripts share: reading the config, the processes and the set-up of a run."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode, LazyConfig
from detectron2.engine import default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import OmegaConf

from reviewkd_det.common import keep_freed_memory, keep_tracebacks_in
from reviewkd_det.common.runs.record import write_run_record
from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.data import (
    register_coco_format,
    register_image_folder,
    use_for_builtin_coco,
)
from reviewkd_det.d2.runs.launch import passed_to_children
from reviewkd_det.d2.runs.trainer import run_files
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer

__all__ = [
    "load_run_config",
    "read_config",
    "read_lazy_config",
    "run",
    "started",
]

LAZY_KEYS = ("model", "optimizer", "lr_multiplier", "dataloader", "train")
LAZY_VALUES = {"train.device": str, "train.amp.enabled": bool, "train.output_dir": str}
# Keys that name data: the parts of each entry, and what makes it known to Detectron2.
NAMED_DATA: list[tuple[str, tuple[str, ...], Callable[..., None]]] = [
    ("COCO_FORMAT", ("name", "json file", "image folder"), register_coco_format),
    ("IMAGE_FOLDERS", ("name", "folder"), register_image_folder),
]


def run(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Call `main` in every process that the arguments ask for.

    Without a GPU the processes share the CPU, up to two for a core. Signals are passed on to them;
    where one dies the others are ended.

    Raises:
        ValueError: they ask for more processes than that, or than there are GPUs, or for none.
    """
    available = torch.cuda.device_count()
    most = available or 2 * (os.cpu_count() or 1)
    if not 1 <= args.num_gpus <= most:
        what = "" if available else ", which has no GPU, of processes that share the CPU"
        raise ValueError(
            f"--num-gpus must be from 1 to {most} on this machine{what}; got {args.num_gpus}"
        )
    with passed_to_children():
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )


def load_run_config(config_file: str, opts: list[str]) -> CfgNode:
    """Read a config for this machine and register the data that it names.

    Without a GPU, `MODEL.DEVICE` becomes "cpu".
    """
    cfg = load_config(config_file, opts, import_code=True)
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    use_for_builtin_coco()
    for key, parts, register in NAMED_DATA:
        for entry in cfg.DATASETS[key]:
            if not isinstance(entry, list | tuple) or [type(x) for x in entry] != [str] * len(
                parts
            ):
                raise ValueError(
                    f"DATASETS.{key} must be a list of [{', '.join(parts)}]; got {entry!r} in it"
                )
            register(*entry, **_options(cfg, key, entry[0]))
    return cfg


def _options(cfg: CfgNode, key: str, name: str) -> dict[str, bool]:
    """Files whose images alone are used need no labels."""
    labeled = name in cfg.DATASETS.TRAIN or name in cfg.DATASETS.TEST
    return {"needs_annotations": labeled} if key == "COCO_FORMAT" else {}


def read_config(args: argparse.Namespace) -> CfgNode:
    """Read the config that the arguments name, and guard its output folder; write nothing.

    To evaluate is to use the student alone, in `OUTPUT_DIR/evaluation`, so the training run keeps
    its own config, log and predictions; with --resume it is the run's last checkpoint.

    Raises:
        FileExistsError: the folder holds another run, and neither --resume nor --overwrite is
            given.
        ValueError: automatic mixed precision is asked for without a GPU.
    """
    cfg = load_run_config(args.config_file, args.opts)
    if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu":
        raise ValueError("SOLVER.AMP.ENABLED must be False on the CPU; got True")
    if args.eval_only:
        cfg.MODEL.DISTILL.METHODS = ()
        if args.resume:
            cfg.MODEL.WEIGHTS = _last_checkpoint(cfg.OUTPUT_DIR)
        cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR, "evaluation"))
    elif not (args.resume or args.overwrite):
        _refuse_another_run(cfg.OUTPUT_DIR)
    cfg.SEED = _seed(cfg.SEED, cfg.OUTPUT_DIR, resume=args.resume)
    cfg.freeze()
    return cfg


def read_lazy_config(args: argparse.Namespace) -> Any:
    """Read a Python config as `read_config` reads a YAML one; `train.output_dir` is guarded.

    Raises:
        FileExistsError: see `read_config`.
        KeyError: an option changes a key that the config does not have.
        ValueError: the config lacks a part or a value, or an option cannot be applied.
    """
    use_for_builtin_coco()
    cfg = LazyConfig.load(args.config_file)
    lacking = [key for key in LAZY_KEYS if key not in cfg]
    if lacking:
        raise ValueError(
            f"config must have {', '.join(LAZY_KEYS)}; '{args.config_file}' lacks {lacking[0]}"
        )
    for option in args.opts:
        key = option.partition("=")[0]
        if not key.startswith(("+", "~")) and OmegaConf.select(cfg, key, default=None) is None:
            raise KeyError(f"option must change a key that the config has; got {option}")
    try:
        cfg = LazyConfig.apply_overrides(cfg, args.opts)
    except Exception as error:  # of hydra's and omegaconf's own kinds
        given, reason = " ".join(args.opts), str(error).partition("\n")[0]
        raise ValueError(f"options must be path.key=value; got {given}: {reason}") from error
    for key, kind in LAZY_VALUES.items():
        is_section = OmegaConf.is_dict(OmegaConf.select(cfg, key.rpartition(".")[0]))
        value = OmegaConf.select(cfg, key) if is_section else None
        if not isinstance(value, kind):
            raise ValueError(f"{key} must be of type {kind.__name__}; got {value!r}")
    if cfg.train.device.startswith("cuda") and not torch.cuda.is_available():
        cfg.train.device = "cpu"
    if cfg.train.amp.enabled and cfg.train.device == "cpu":
        raise ValueError("train.amp.enabled must be False on the CPU; got True")
    if args.eval_only:
        if args.resume:
            cfg.train.init_checkpoint = _last_checkpoint(cfg.train.output_dir)
        cfg.train.output_dir = str(Path(cfg.train.output_dir, "evaluation"))
    elif not (args.resume or args.overwrite):
        _refuse_another_run(cfg.train.output_dir)
    return cfg


@contextmanager
def started(cfg: Any, args: argparse.Namespace, output_dir: str, device: str) -> Iterator[None]:
    """Start logging and save the config; the block builds the run and may still fail.

    Where it does, the config that the output folder held before is put back; where it does not,
    and --overwrite was given, what another run left there is removed.
    """
    saved = Path(output_dir, "config.yaml")
    before = saved.read_bytes() if saved.is_file() else None
    old_files = run_files(output_dir) if args.overwrite and comm.is_main_process() else []
    default_setup(cfg, args)
    keep_tracebacks_in(output_dir)
    if device == "cpu" and comm.get_world_size() > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // comm.get_world_size()))
    setup_logger(output_dir, distributed_rank=comm.get_rank(), name="reviewkd_det")
    _keep_tracebacks_off_the_terminal()
    if device == "cpu":
        keep_freed_memory()
        logging.getLogger(__name__).info("Running on the CPU")
    try:
        yield
    except Exception:
        if before is not None and comm.is_main_process():
            saved.write_bytes(before)
        raise
    for path in old_files:
        if path.name == "metrics.json":
            os.truncate(path, 0)  # the new run has it open already
        else:
            path.unlink()
    if comm.is_main_process() and not args.eval_only:
        write_run_record(output_dir, sys.argv, comm.get_world_size(), resume=args.resume)


def _seed(seed: int, output_dir: str, *, resume: bool) -> int:
    """The seed of a run: its own, that of the run to resume, or one drawn for all processes."""
    saved = Path(output_dir, "config.yaml")
    if seed < 0 and resume and saved.is_file():
        seed = yaml.safe_load(saved.read_text(encoding="utf-8")).get("SEED", seed)
    return comm.shared_random_seed() if seed < 0 else seed


def _last_checkpoint(output_dir: str) -> str:
    run = VerifiedCheckpointer(torch.nn.Module(), output_dir, key="OUTPUT_DIR")
    if not run.has_checkpoint():
        raise FileNotFoundError(f"--resume must find a checkpoint; got none in '{output_dir}'")
    return run.get_checkpoint_file()


def _refuse_another_run(output_dir: str) -> None:
    try:
        checkpoints = [path for path in run_files(output_dir) if path.suffix == ".pth"]
    except OSError as error:  # too long, or out of bounds
        raise ValueError(f"OUTPUT_DIR must name a folder; got '{output_dir}': {error}") from error
    if checkpoints:
        raise FileExistsError(
            f"OUTPUT_DIR must not hold another run's checkpoints; got '{output_dir}' with "
            f"{checkpoints[0].name}; add --resume to go on with it or --overwrite to replace it"
        )


def _keep_tracebacks_off_the_terminal() -> None:
    """Detectron2 logs an exception in training with its traceback; leave that to log.txt."""
    for handler in logging.getLogger("detectron2").handlers:
        if getattr(handler, "stream", None) is sys.stdout:
            handler.addFilter(lambda record: not record.exc_info)
