"""The start of a run: its processes, its folder and its log."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from reviewkd_det.common import keep_freed_memory, keep_tracebacks_in
from reviewkd_det.common.runs.changes import Settled
from reviewkd_det.common.runs.record import write_run_record
from reviewkd_det.common.runs.seeds import saved_seed
from reviewkd_det.common.runs.trackers import IDS
from reviewkd_det.d2.runs.launch import pass_to_children

__all__ = [
    "find_seed",
    "guard_folder",
    "is_first_to_train",
    "note",
    "run",
    "set_up_run",
]

# What a run writes into its folder, besides its log and config.
RUN_FILES = (
    "model_*.pth",
    "last_checkpoint",
    "metrics.json",
    "events.out.tfevents.*",
    "summary.json",
    IDS,
)


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
    with pass_to_children():
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )


@contextmanager
def set_up_run(
    cfg: Any, args: argparse.Namespace, output_dir: str, device: str
) -> Iterator[dict[str, Any]]:
    """Start logging and save the config; the block builds the run and may still fail.

    The block gets a dictionary; what it puts there, such as `classes`, is kept in `run.json`.

    Where it does, the config that the output folder held before is put back; where it does not,
    and --overwrite was given, what another run left there is removed.
    """
    saved = Path(output_dir, "config.yaml")
    before = saved.read_bytes() if saved.is_file() else None
    old_files = _run_files(output_dir) if args.overwrite and comm.is_main_process() else []
    notes = vars(args).pop("notes", ())
    default_setup(cfg, args)
    keep_tracebacks_in(output_dir)
    if device == "cpu" and comm.get_world_size() > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // comm.get_world_size()))
    setup_logger(output_dir, distributed_rank=comm.get_rank(), name="reviewkd_det")
    _keep_tracebacks_off_the_terminal()
    for level, line in notes:
        logging.getLogger(__name__).log(level, "%s", line)
    if device == "cpu":
        keep_freed_memory()
        logging.getLogger(__name__).info("Running on the CPU")
    record: dict[str, Any] = {}
    try:
        yield record
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
        processes = comm.get_world_size()
        write_run_record(output_dir, sys.argv, processes, resume=args.resume, **record)


def is_first_to_train(args: argparse.Namespace) -> bool:
    """Whether this is the process of a training that stands for all its processes."""
    return not args.eval_only and comm.is_main_process()


def find_seed(seed: int, output_dir: str, key: str, *, resume: bool) -> int:
    """The seed of a run: its own, that of the run to resume, or one drawn for all processes.

    Args:
        seed: seed that the config gives; a negative one leaves it open.
        output_dir: folder of the run.
        key: dotted name of the seed in a config.
        resume: whether the run goes on.
    """
    if seed < 0 and resume:
        saved = saved_seed(Path(output_dir, "config.yaml"), key)
        seed = seed if saved is None else saved
    return comm.shared_random_seed() if seed < 0 else seed


def note(args: argparse.Namespace, line: str, *, is_warning: bool = False) -> None:
    """Remember a line of a command for its log, which is not open yet."""
    level = logging.WARNING if is_warning else logging.INFO
    args.notes = [*getattr(args, "notes", ()), (level, line)]


def guard_folder(
    args: argparse.Namespace, output_dir: str, settle: Callable[[], Settled | None]
) -> None:
    """Settle what a run that goes on was asked to change, or refuse a folder of another run.

    Args:
        args: arguments of the command.
        output_dir: folder of the run.
        settle: function that compares the config with that of the run to go on with, if any.

    Raises:
        FileExistsError: the folder holds another run, and neither --resume nor --overwrite is
            given.
        ValueError: the run cannot go on with this config, or the folder has no possible name.
    """
    if args.resume:
        if (settled := settle()) is not None and settled.warning:
            note(args, settled.warning, is_warning=True)
    elif not args.overwrite:
        _refuse_another_run(output_dir)


def _refuse_another_run(output_dir: str) -> None:
    """Raise FileExistsError where the output folder holds a run's checkpoints."""
    try:
        checkpoints = [path for path in _run_files(output_dir) if path.suffix == ".pth"]
    except OSError as error:  # too long, or out of bounds
        raise ValueError(f"OUTPUT_DIR must name a folder; got '{output_dir}': {error}") from error
    if checkpoints:
        raise FileExistsError(
            f"OUTPUT_DIR must not hold another run's checkpoints; got '{output_dir}' with "
            f"{checkpoints[0].name}; add --resume to go on with it or --overwrite to replace it"
        )


def _run_files(output_dir: str) -> list[Path]:
    """The checkpoints, metrics and events of the run that an output folder holds."""
    return sorted(path for pattern in RUN_FILES for path in Path(output_dir).glob(pattern))


def _keep_tracebacks_off_the_terminal() -> None:
    """Detectron2 logs an exception in training with its traceback; leave that to log.txt."""
    for handler in logging.getLogger("detectron2").handlers:
        if getattr(handler, "stream", None) is sys.stdout:
            handler.addFilter(lambda record: not record.exc_info)
