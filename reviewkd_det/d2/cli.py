"""What the scripts share: set-up of a run, and errors as one sentence."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup

from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.data import register_coco_format

__all__ = ["load_run_config", "run", "setup"]

RUN_FILES = ("*.pth", "last_checkpoint", "metrics.json", "events.out.tfevents.*", "summary.json")


def run(main: Callable[[], None]) -> None:
    """Call `main`; turn an error that a user can mend into one sentence and exit code 1.

    The traceback is in the run's `log.txt`; REVIEWKD_DET_TRACEBACK=1 prints it.
    """
    try:
        main()
    except (ArithmeticError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        if os.environ.get("REVIEWKD_DET_TRACEBACK"):
            raise
        logging.getLogger("detectron2").debug("Stopped by an error", exc_info=True)
        print(f"{Path(sys.argv[0]).name}: error: {_sentence(error)}", file=sys.stderr)
        sys.exit(1)


def _sentence(error: Exception) -> str:
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line for line in message.splitlines() if line.strip()] or [type(error).__name__]
    if "Traceback (most recent call last)" in message:  # raised in a worker process, see its end
        return lines[-1].strip().partition(": ")[2].strip("'\"") or lines[-1].strip()
    return " ".join(line.strip() for line in lines)


def load_run_config(config_file: str, opts: list[str]) -> CfgNode:
    """Read a config for this machine and register the data that it names.

    Without a GPU, `MODEL.DEVICE` becomes "cpu".
    """
    cfg = load_config(config_file, opts)
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    for entry in cfg.DATASETS.COCO_FORMAT:
        if not isinstance(entry, list | tuple) or [type(x) for x in entry] != [str, str, str]:
            raise ValueError(
                "DATASETS.COCO_FORMAT must be a list of [name, json file, image folder]; "
                f"got {entry!r}"
            )
        register_coco_format(*entry)
    return cfg


def setup(args: argparse.Namespace) -> CfgNode:
    """Read the config that the arguments name, guard its output folder, and start logging.

    Raises:
        FileExistsError: the folder holds another run, and neither --resume nor --overwrite is
            given.
    """
    cfg = load_run_config(args.config_file, args.opts)
    if args.eval_only:
        # The student alone is evaluated, and its training folder keeps its own config and log.
        cfg.MODEL.DISTILL.METHODS = ()
        cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR, "evaluation"))
    elif not (args.resume or args.overwrite):
        _refuse_another_run(cfg.OUTPUT_DIR)
    cfg.freeze()
    default_setup(cfg, args)
    _keep_tracebacks_off_the_terminal()
    if cfg.MODEL.DEVICE == "cpu":
        logging.getLogger("detectron2").info("Running on the CPU")
    return cfg


def run_files(output_dir: str) -> list[Path]:
    """What a training run wrote into its output folder, besides its log and config."""
    return sorted(path for pattern in RUN_FILES for path in Path(output_dir).glob(pattern))


def _refuse_another_run(output_dir: str) -> None:
    checkpoints = [path for path in run_files(output_dir) if path.suffix == ".pth"]
    if checkpoints:
        raise FileExistsError(
            f"OUTPUT_DIR must not hold another run's checkpoints; got '{output_dir}' with "
            f"{checkpoints[0].name}; add --resume to go on with it or --overwrite to replace it"
        )


def _keep_tracebacks_off_the_terminal() -> None:
    """Detectron2 logs an exception in training with its traceback; leave that to log.txt."""
    for handler in logging.getLogger("detectron2").handlers:
        if type(handler) is logging.StreamHandler:
            handler.addFilter(lambda record: record.exc_info is None)
