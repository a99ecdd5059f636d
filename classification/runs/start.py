"""One process of a training or of an evaluation: its set-up, its log, and its last line."""

import argparse
import json
import logging
import sys
from logging.handlers import MemoryHandler
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs
from fvcore.common.config import CfgNode
from tqdm.contrib.logging import logging_redirect_tqdm

from classification.build import build_data, check_classes
from classification.config import load_config
from classification.config_checks import plan_config
from classification.networks import build_deployed
from classification.reading.preprocess import Preprocess
from classification.runs.evaluation import evaluate
from classification.runs.folder import RunFolder
from classification.runs.resuming import settle_resume
from classification.runs.summary import describe, final_block
from classification.runs.trainer import Trainer
from reviewkd_det.common import (
    catch_interruption,
    keep_freed_memory,
    keep_tracebacks_in,
    replace_file,
)
from reviewkd_det.common.distill.build import needs_of
from reviewkd_det.common.runs.lock import lock_folder
from reviewkd_det.common.runs.record import write_run_record
from reviewkd_det.common.runs.run_command import run_command
from reviewkd_det.common.runs.stopping import StopRequest
from reviewkd_det.core import Need

__all__ = ["evaluate_main", "train_main"]

logger = logging.getLogger("classification")
LOGGERS = (logger, logging.getLogger("reviewkd_det"))  # of this package and of what it shares
LINES = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")


def train_main(args: argparse.Namespace) -> int:
    """Train as the arguments of `train.py` say.

    Returns:
        The exit code: 0, or that of the signal after which the run stopped.

    Raises:
        FileExistsError: OUTPUT_DIR holds another run, and neither --resume nor --overwrite is
            given, or a run that is training.
        ValueError: a tracker is not installed, the precision needs a GPU, or a run would go on
            with another teacher or other data.
    """
    cfg = load_config(args.config_file, args.opts)
    accelerator = _start(cfg, cfg.TRACKERS)
    waiting = _open_log(accelerator)
    run = RunFolder(cfg.OUTPUT_DIR, accelerator)
    settled = settle_resume(cfg, run.state_files.folder) if args.resume else None
    if not (args.resume or args.overwrite):
        run.refuse_another_run()
    data = build_data(cfg, accelerator)
    check_classes(cfg, data.class_names, resume=args.resume)
    trainer = Trainer(cfg, accelerator, run, data)
    # Nothing is written, and no earlier run removed, before everything has been built.
    with lock_folder(run.path, needed=accelerator.is_main_process):
        if args.overwrite:
            run.remove_run()
        trainer.resume()
        if settled is not None:
            trainer.note_changes(settled)
        if accelerator.is_main_process:
            keep_tracebacks_in(run.path)
            _keep_log(waiting, run.path / "log.txt")
            text = cfg.dump()
            path = run.path / "config.yaml"
            replace_file(path, lambda part: part.write_text(text, encoding="utf-8"))
            processes, classes = accelerator.num_processes, data.class_names
            write_run_record(run.path, sys.argv, processes, resume=args.resume, classes=classes)
        trainer.tracking.start(resumed=trainer.goes_on)
        logger.info("%s", data.description)
        logger.info("%s", describe(cfg, trainer.plain, accelerator))
        return _train(trainer)


def _train(trainer: Trainer) -> int:
    """Train to the end or to a signal, and log the last line; returns the exit code."""
    cfg, accelerator, run = trainer.cfg, trainer.accelerator, trainer.run
    with logging_redirect_tqdm([*LOGGERS]), catch_interruption() as interruption:
        summary = trainer.train(StopRequest(interruption))
        if summary is not None:
            logger.info("%s", final_block(cfg, summary, run.path))
        elif interruption.signal is not None:
            command = run_command(sys.argv, accelerator.num_processes, resume=True)
            name, position = interruption.signal.name, trainer.position
            logger.info("Stopped by %s %s; go on with: %s", name, position, command)
        # When the first process leaves with an error code, a launcher ends the others.
        accelerator.wait_for_everyone()
    trainer.tracking.finish(summary)
    return interruption.exit_code if summary is None else 0


def evaluate_main(args: argparse.Namespace) -> None:
    """Test a checkpoint as the arguments of `evaluate.py` say, and print its accuracy.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: it does not fit the network or the data, or was trained on other classes.
    """
    cfg = load_config(args.config_file, args.opts)
    weights = args.weights or str(_last_weights(args, cfg))
    accelerator = _start(cfg)
    _open_log(accelerator)
    data = build_data(cfg, accelerator, training=False)
    check_classes(cfg, data.class_names, tested=weights)
    # Else the config's is that of the file that the run began with.
    entry = cfg.MODEL.WEIGHTS_ENTRY if "MODEL.WEIGHTS_ENTRY" in args.opts[::2] else ""
    model = build_deployed(cfg, weights, len(data.class_names), entry=entry)
    preprocess = Preprocess(cfg.INPUT.MEAN, cfg.INPUT.STD)
    classify = torch.nn.Sequential(preprocess, model).to(accelerator.device).eval()
    accuracy = evaluate(classify, data.test, accelerator)
    shown = ", ".join(f"{name} {value:.2f}" for name, value in accuracy.items())
    logger.info("%s with %s on %s: %s", cfg.MODEL.NAME, weights, data.description, shown)
    if args.json and accelerator.is_main_process:
        replace_file(Path(args.json), lambda part: part.write_text(json.dumps(accuracy) + "\n"))


def _last_weights(args: argparse.Namespace, cfg: CfgNode) -> Path:
    """The last weights of a run; beside its own config, since a run may be moved or copied."""
    config = Path(args.config_file)
    own = config.with_name("last.pth")
    is_own = config.name == "config.yaml" and own.is_file() and "OUTPUT_DIR" not in args.opts[::2]
    return own if is_own else Path(cfg.OUTPUT_DIR, "last.pth")


def _start(cfg: CfgNode, trackers: tuple[str, ...] = ()) -> Accelerator:
    installed = [str(tracker) for tracker in get_available_trackers()]
    for tracker in trackers:
        if tracker not in installed:
            raise ValueError(
                f"TRACKERS must be of what is installed, {', '.join(installed)}; got {tracker!r}; "
                f"install it with pip install {tracker}"
            )
    torch.backends.cudnn.benchmark = True
    if not torch.accelerator.is_available():
        keep_freed_memory()
    # Where a stage trains a part of the parameters, the others' gradients are not waited for.
    has_stage = Need.STAGE in needs_of(plan_config(cfg))
    return Accelerator(
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=has_stage)],
        # Without saying so, processes on CPUs would each train alone.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=cfg.SOLVER.PRECISION,
        gradient_accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
        log_with=list(trackers) or None,
        project_dir=cfg.OUTPUT_DIR,
    )


def _open_log(accelerator: Accelerator) -> MemoryHandler:
    """Log the main process on the terminal, and remember the lines for a file."""
    waiting = MemoryHandler(capacity=10_000, flushLevel=sys.maxsize)
    handlers = logging.StreamHandler(sys.stdout), waiting
    for handler in handlers:
        handler.setFormatter(LINES)
    for each in LOGGERS:
        each.setLevel(logging.INFO if accelerator.is_main_process else logging.ERROR)
        each.handlers[:] = handlers
    return waiting


def _keep_log(waiting: MemoryHandler, path: Path) -> None:
    """Write the lines so far to a file, and all that follow."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(LINES)
    waiting.setTarget(file)
    waiting.close()  # which flushes it
    for each in LOGGERS:
        each.removeHandler(waiting)
        each.addHandler(file)
