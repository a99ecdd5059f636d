"""Print the mean and the spread over several seeds of the same runs.

python classification/results_table.py docs/results/digits_seed*.json
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

from reviewkd_det.common import one_sentence_errors

__all__ = ["seeds_table"]

HEADERS = ["run", "top-1", "top-5", "top-1 of each seed", "best top-1", "epochs", "train seconds"]


def seeds_table(seeds: list[dict[str, dict[str, Any]]]) -> str:
    """One row per run, as mean and standard deviation over the seeds.

    Args:
        seeds: for each seed the runs by name, each with the content of its `summary.json`.

    Raises:
        ValueError: the seeds are not of the same runs.
    """
    names = list(seeds[0])
    for other in seeds[1:]:
        if set(other) != set(names):
            raise ValueError(f"seeds must be of the same runs; got {names} and {list(other)}")
    rows = []
    for name in names:
        runs = [seed[name] for seed in seeds]
        rows.append(
            [
                name.replace("_", " "),
                *(_spread([run[key] for run in runs]) for key in ("top1", "top5")),
                ", ".join(f"{run['top1']:.1f}" for run in runs),
                _spread([run["best"]["top1"] for run in runs]),
                ", ".join(dict.fromkeys(str(run["epochs"]) for run in runs)),
                _spread([run["train_seconds"] for run in runs], digits=0),
            ]
        )
    return tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)


def _spread(values: list[float], digits: int = 1) -> str:
    shown = f"{mean(values):.{digits}f}"
    return shown if len(values) == 1 else f"{shown} ± {stdev(values):.{digits}f}"


def main() -> None:
    """Read the files and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("summaries", nargs="+", type=Path, help="one demo's summary.json per seed")
    paths = parser.parse_args().summaries
    print(seeds_table([json.loads(path.read_text(encoding="utf-8")) for path in paths]))


if __name__ == "__main__":
    one_sentence_errors(main)
