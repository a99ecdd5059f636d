"""Command lines, read and checked before anything that takes seconds to import."""

import argparse
import os
import sys
from pathlib import Path

from reviewkd_det.common.config.recipes import find_config

__all__ = [
    "check_config_file",
    "parse_before_options",
    "parse_run_args",
    "run_parser",
    "split_named_folder",
]

EXAMPLES = """examples:
  %(prog)s --config-file CONFIG SOLVER.BASE_LR 0.001
  %(prog)s --config-file CONFIG --num-gpus 8
  %(prog)s --config-file CONFIG --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url URL
"""


def run_parser() -> argparse.ArgumentParser:
    """Make `detectron2.engine.default_argument_parser`, whose import takes seconds."""
    parser = argparse.ArgumentParser(
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file",
        default="",
        metavar="FILE",
        help="path of a config file, or name of a recipe",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the last checkpoint of the output folder"
    )
    parser.add_argument("--eval-only", action="store_true", help="perform evaluation only")
    parser.add_argument("--num-gpus", type=int, default=1, help="number of GPUs per machine")
    parser.add_argument("--num-machines", type=int, default=1, help="total number of machines")
    parser.add_argument(
        "--machine-rank", type=int, default=0, help="the rank of this machine, from 0"
    )
    # The same port for every run of a user: one that an orphaned process still holds is noticed.
    port = 2**15 + 2**14 + (os.getuid() if sys.platform != "win32" else 1) % 2**14
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{port}",
        help="where the processes meet, see torch.distributed",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        help="KEY VALUE pairs over a YAML config, path.key=value over a Python config",
    )
    return parser


def parse_before_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse a command line whose rest is `opts`, and refuse a flag that stands among these."""
    args = parser.parse_args()
    for word in args.opts:
        if (word.startswith("--") and word != "--") or word == "-h":
            parser.error(f"{word} must stand before all KEY VALUE pairs; got it after one")
    return args


def parse_run_args(*, python_config: bool = False) -> argparse.Namespace:
    """Read Detectron2's arguments for a training script, and --overwrite.

    Args:
        python_config: whether the config must be a Python file.

    Returns:
        The arguments; `config_file` is the path of the file or recipe that was named.

    Raises:
        FileNotFoundError: neither a file nor a recipe has the config's name.
        ValueError: it is no Python file and must be one.
    """
    parser = run_parser()
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run that the output folder holds"
    )
    args = parse_before_options(parser)
    if not args.config_file:
        parser.error("--config-file must name a config file")
    if args.num_gpus < 1:
        parser.error(f"--num-gpus must be at least 1; got {args.num_gpus}")
    if args.resume and args.overwrite:
        parser.error("--resume and --overwrite must not be given together")
    if python_config and Path(args.config_file).suffix != ".py":
        raise ValueError(f"--config-file must be a Python config; got '{args.config_file}'")
    args.config_file = str(find_config(args.config_file))
    return args


def split_named_folder(value: str) -> tuple[str | None, Path]:
    """Split `NAME=FOLDER`; None is the name of a mere folder, whose own name may hold a "="."""
    name, equals, folder = value.partition("=")
    return (name, Path(folder)) if equals and not Path(value).is_dir() else (None, Path(value))


def check_config_file(path: str | Path, named_by: str = "") -> None:
    """Check that a config file exists.

    Args:
        path: path of the file.
        named_by: end of the error sentence, which says where the path is from.

    Raises:
        FileNotFoundError: it does not.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"config file must exist; got '{path}'{named_by}")
