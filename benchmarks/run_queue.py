"""Many trainings, one after the other, whose records are kept as each ends.

A queue is a YAML file:

    script: tools/train_net.py               # the default
    config: configs/demo/student.yaml        # of every run that names no other
    options: {SOLVER.IMS_PER_BATCH: 8}       # of every run
    seeds: [1, 2, 3]                         # of every run that names no others
    runs:
      - {row: plain, options: {SOLVER.MAX_ITER: 3000}}

The first seed of all rows comes first, so that whatever is done when the queue is stopped is a
table. `{seed}` in a value is the run's seed, and `{output}` the folder of all runs.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.records import read_file, record, write_file
from reviewkd_det.common.console.commands import program
from reviewkd_det.report import read_run

__all__ = ["QueuedRun", "read_queue", "run_queue"]

KEYS = {"script", "config", "options", "seeds", "runs", "row"}


@dataclass(frozen=True)
class QueuedRun:
    """One training of a queue.

    Args:
        row: name of its row of a table.
        seed: seed of the run.
        folder: output folder of the run.
        command: words of the command that trains it.
    """

    row: str
    seed: int
    folder: Path
    command: tuple[str, ...]


def read_queue(path: Path, output: Path) -> list[QueuedRun]:
    """Read the runs of a queue in the order in which they are to be trained.

    Args:
        path: YAML file of the queue.
        output: folder that holds a folder for each run.

    Raises:
        ValueError: a key is unknown, a row stands there twice, or an option is the seed.
    """
    queue = yaml.safe_load(path.read_text(encoding="utf-8"))
    for part in (queue, *queue["runs"]):
        if unknown := set(part) - KEYS:
            raise ValueError(f"{path} must have the keys {sorted(KEYS)}; got {sorted(unknown)}")
        if "SEED" in part.get("options", {}):
            raise ValueError(f"{path} must give seeds by its key seeds; got SEED in options")
    rows = [run["row"] for run in queue["runs"]]
    if len(set(rows)) < len(rows):
        raise ValueError(f"{path} must name each row once; got {rows}")
    seeds = dict.fromkeys(seed for run in queue["runs"] for seed in _seeds(queue, run))
    return [
        _queued(queue, run, seed, output)
        for seed in seeds
        for run in queue["runs"]
        if seed in _seeds(queue, run)
    ]


def run_queue(runs: list[QueuedRun], records: Path, *, timed: bool, commit: bool) -> list[str]:
    """Train what has no record yet; a run that was stopped goes on where it was.

    Args:
        runs: runs in the order in which they are trained.
        records: JSON file of the records, written anew after each run.
        timed: whether the seconds of the runs mean anything.
        commit: whether each new record becomes a commit.

    Returns:
        The names of the runs that failed.
    """
    failed = []
    for number, run in enumerate(runs, 1):
        done = read_file(records) if records.is_file() else []
        if any(x["row"] == run.row and x["seed"] == run.seed for x in done):
            continue
        name = f"{run.row}, seed {run.seed}"
        print(f"{number} of {len(runs)}: {name}", flush=True)
        if not _train(run):
            failed.append(name)
            continue
        done.append(record(read_run(run.folder, run.row), timed=timed))
        places = {(x.row, x.seed): place for place, x in enumerate(runs)}
        done.sort(key=lambda x: places.get((x["row"], x["seed"]), -1))
        write_file(records, done)
        if commit:
            _commit(records, f"Record {name}")
    return failed


def _seeds(queue: Mapping[str, Any], run: Mapping[str, Any]) -> list[int]:
    seeds: list[int] = run.get("seeds", queue.get("seeds"))
    return seeds


def _queued(queue: Mapping[str, Any], run: Mapping[str, Any], seed: int, output: Path) -> QueuedRun:
    name = re.sub(r"[^a-z0-9]+", "_", run["row"].lower()).strip("_")
    folder = output / f"{name}_{seed}"
    script = run.get("script", queue.get("script", "tools/train_net.py"))
    options = {**queue.get("options", {}), **run.get("options", {})}
    words = [*program(script), "--config-file", run.get("config", queue.get("config"))]
    words += ["OUTPUT_DIR", str(folder), "SEED", str(seed)]
    words += _words(options, seed, output)
    return QueuedRun(run["row"], seed, folder, tuple(words))


def _words(options: Mapping[str, Any], seed: int, output: Path) -> Iterator[str]:
    for key, value in options.items():
        text = value if isinstance(value, str) else json.dumps(value).replace("null", "None")
        text = {"true": "True", "false": "False"}.get(text, text)
        yield from (key, text.replace("{seed}", str(seed)).replace("{output}", str(output)))


def _train(run: QueuedRun) -> bool:
    run.folder.mkdir(parents=True, exist_ok=True)
    place = run.command.index("OUTPUT_DIR")  # flags stand before KEY VALUE pairs
    flags = ["--resume"] if any(run.folder.glob("*.pth")) else []
    with (run.folder / "queue.log").open("ab") as log:
        command = [*run.command[:place], *flags, *run.command[place:]]
        return not subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode


def _commit(path: Path, subject: str) -> None:
    for command in (["add", str(path)], ["commit", "--quiet", "-m", subject, "--", str(path)]):
        subprocess.run(["git", *command], check=True, stdout=sys.stderr)
