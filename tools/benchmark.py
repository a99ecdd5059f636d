"""Measure what distillation costs: a plain step, ours, and the same method written plainly.

python tools/benchmark.py [--config-file configs/RECIPE.yaml] [--size 256 384] [--batch 2]
    [--repeats 5] [--method NAME ... | --method all] [--json FILE] [KEY VALUE ...]

Weights are random and images synthetic: nothing is downloaded.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from reviewkd_det.common import entry_point, find_config

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = Path(os.path.relpath(ROOT / "configs"))


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default=str(CONFIGS / "faster_rcnn_r50_r18.yaml"))
    parser.add_argument("--size", nargs=2, type=int, default=(256, 384), help="height and width")
    parser.add_argument("--batch", type=int, default=2, help="images in a step")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each part")
    parser.add_argument("--threads", type=int, help="of the CPU; PyTorch's choice by default")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument(
        "--memory",
        default="kept",
        help="freed memory on a CPU: kept, as in a training run, or stock",
    )
    parser.add_argument(
        "--precision", default="float32", help="float32, tf32, or automatic float16 or bfloat16"
    )
    parser.add_argument(
        "--method", action="append", default=[], dest="methods",
        help="measure a step with this method alone in place of its parts; several times for "
        "several, all for all that can teach the student",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="file to write all numbers into")
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="changes to the config")
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Find the config, and check what can be checked before anything that takes seconds to import.

    Raises:
        FileNotFoundError: the config, or the folder of a file to write, does not exist.
        ValueError: there is to be no thread.
    """
    args.config_file = str(find_config(args.config_file))
    if args.json is not None and not args.json.parent.is_dir():
        raise FileNotFoundError(f"--json must be in a folder that exists; got '{args.json}'")
    if args.threads is not None and args.threads < 1:
        raise ValueError(f"--threads must be at least 1; got {args.threads}")


@entry_point
def main() -> None:
    """Measure, print and write."""
    args = parse()
    check(args)
    import torch

    sys.path.append(str(ROOT))  # benchmarks are not installed
    from benchmarks.speed import (
        Settings,
        benchmark,
        comparison_table,
        costs_table,
        measure_methods,
    )

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    settings = Settings(
        args.config_file,
        tuple(args.opts),
        tuple(args.size),
        args.batch,
        args.repeats,
        args.precision,
        args.device,
        args.memory,
    )
    results: object
    if args.methods:
        rows = measure_methods(settings, [] if args.methods == ["all"] else args.methods)
        print(costs_table(rows, settings, markdown=args.markdown))
        results = rows
    else:
        found = benchmark(settings)
        print(comparison_table(found, markdown=args.markdown))
        results = found
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
