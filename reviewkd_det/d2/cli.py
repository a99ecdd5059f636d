"""What the scripts share: arguments, set-up of a run, and errors as one sentence."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.data import register_coco_format
from reviewkd_det.d2.engine import run_files

__all__ = ["load_run_config", "one_sentence_errors", "parse_run_args", "run", "setup"]


def parse_run_args() -> argparse.Namespace:
    """Detectron2's arguments for a training script, and --overwrite."""
    parser = default_argument_parser()
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run that OUTPUT_DIR holds"
    )
    args = parser.parse_args()
    if not args.config_file:
        parser.error("--config-file must name a config file")
    if args.resume and args.overwrite:
        parser.error("--resume and --overwrite must not be given together")
    return args


def run(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Call `main` in every process that the arguments ask for, with `one_sentence_errors`."""
    one_sentence_errors(
        lambda: launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    )


def one_sentence_errors(main: Callable[[], None]) -> None:
    """Call `main`; turn an error that a user can mend into one sentence and exit code 1.

    The environment variable REVIEWKD_DET_TRACEBACK=1 shows the traceback instead.
    """
    try:
        main()
    except (ArithmeticError, ImportError, LookupError, OSError, RuntimeError, ValueError) as error:
        if os.environ.get("REVIEWKD_DET_TRACEBACK"):
            raise
        print(f"{Path(sys.argv[0]).name}: error: {_sentence(error)}", file=sys.stderr)
        sys.exit(1)


def _sentence(error: Exception) -> str:
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if "Traceback (most recent call last):" in lines:  # from a worker process: its last line counts
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(lines) or type(error).__name__


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
                f"got {entry!r} in it"
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
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="reviewkd_det")
    _keep_tracebacks_off_the_terminal()
    if cfg.MODEL.DEVICE == "cpu":
        logging.getLogger(__name__).info("Running on the CPU")
    return cfg


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
        if getattr(handler, "stream", None) is sys.stdout:
            handler.addFilter(lambda record: not record.exc_info)
