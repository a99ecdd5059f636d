"""What a run measured, small enough to keep beside the documentation."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from reviewkd_det.common import replace_file
from reviewkd_det.report.runs import CLASSIFIER, Run
from reviewkd_det.report.tables import spread

__all__ = ["METRICS", "read_file", "read_records", "record", "seeds_table", "write_file"]

METRICS = ("AP", "AP50", "AP75")
LOGGED_STEPS = 8  # of the losses, evenly over the run
Record = dict[str, Any]


def record(run: Run, *, timed: bool = True) -> Record:
    """A finished run as plain data.

    Args:
        run: evaluated run, named as its row of the table, whose runs differ in their seed.
        timed: whether the seconds of the run mean anything; False leaves them out.

    Raises:
        ValueError: it is not finished, or a detector that was not evaluated on boxes.
    """
    is_classifier = run.kind is CLASSIFIER
    scores = _accuracies(run) if is_classifier else _precisions(run)
    if not scores and _is_tested(run):
        raise ValueError(
            f"a run to keep must be finished and evaluated on boxes or classes; got '{run.folder}'"
        )
    losses = {
        step: {name: round(x, 4) for name, x in values.items() if "loss" in name}
        for step, values in run.history.items()
    }
    losses = {step: values for step, values in losses.items() if values}
    every = max(1, -(-len(losses) // LOGGED_STEPS))
    kept = list(losses)[::-1][::every][::-1]  # the last one is among them
    over_steps = run.series("top1" if is_classifier else "bbox/AP")
    return {
        "row": run.name,
        "command": run.command.replace(f"{Path.cwd()}{os.sep}", ""),
        "seed": run.config.get(run.kind.seed),
        "scores": {name: round(score, 2) for name, score in scores.items()},
        "parameters": run.summary["parameters"],
        f"{run.kind.unit}s": run.steps,
        **({"train_seconds": run.summary["train_seconds"]} if timed else {}),
        f"{next(iter(scores), 'AP')} over {run.kind.unit}s": {
            step: round(score, 2) for step, score in over_steps.items()
        },
        "losses": {step: losses[step] for step in kept},
    }


def _is_tested(run: Run) -> bool:
    """Whether a run is one that is evaluated: the pre-training of a backbone detects nothing."""
    return not run.is_finished or bool(run.config.get("DATASETS.TEST", True))


def _precisions(run: Run) -> dict[str, float]:
    results = run.summary.get("results") or {}
    boxes, masks = results.get("bbox") or {}, results.get("segm") or {}
    scores = {name: boxes[name] for name in METRICS if name in boxes}
    if "AP" in masks:
        scores["mask AP"] = masks["AP"]
    # Detectron2 gives no number where a model detects nothing.
    return {name: score or 0.0 for name, score in scores.items()}


def _accuracies(run: Run) -> dict[str, float]:
    if "top1" not in run.summary:
        return {}
    summary = run.summary
    return {
        "top-1": summary["top1"],
        "top-5": summary["top5"],
        "best top-1": summary["best"]["top1"],
    }


def read_records(folder: Path, name: str) -> list[Record]:
    """The records of a file, `NAME.json`.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"a table must name files of {folder}; got '{name}'")
    return read_file(path)


def read_file(path: Path) -> list[Record]:
    """The records of a file."""
    records: list[Record] = json.loads(path.read_text(encoding="utf-8"))
    return records


def write_file(path: Path, records: Sequence[Record]) -> None:
    """Write records, one in a line, as a whole file."""
    lines = ",\n".join(json.dumps(x, ensure_ascii=False) for x in records)
    replace_file(path, lambda part: part.write_text(f"[\n{lines}\n]\n", encoding="utf-8"))


def seeds_table(records: Sequence[Record]) -> str:
    """One row for each row's name: mean and standard deviation over its seeds, in Markdown.

    What has no scores, as the pre-training of a backbone, is left out.
    """
    records = [x for x in records if x["scores"]]
    names = list(dict.fromkeys(name for x in records for name in x["scores"]))
    unit = "iterations" if "iterations" in records[0] else "epochs"
    timed = all("train_seconds" in x for x in records)
    rows = []
    for row in dict.fromkeys(x["row"] for x in records):
        runs = [x for x in records if x["row"] == row]
        scores = [spread([x["scores"].get(name) for x in runs], ".1f") for name in names]
        each = ", ".join(f"{x['scores'][names[0]]:.1f}" for x in runs)
        steps = ", ".join(dict.fromkeys(f"{x[unit]:,}" for x in runs))
        seconds = [spread([x["train_seconds"] for x in runs], ".0f")] if timed else []
        rows.append([row, *scores, each, steps, *seconds])
    headers = ["run", *names, f"{names[0]} of each seed", unit]
    headers += ["train seconds"] if timed else []
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)
