"""Reading a run's output folder; nothing of it is executed."""

import json
import math
from pathlib import Path
from typing import Any

from reviewkd_det.common.config.nested import flat
from reviewkd_det.common.config.plain_yaml import read_plain_yaml
from reviewkd_det.common.runs.record import RECORD
from reviewkd_det.report.runs import CLASSIFIER, DETECTOR, LAZY_DETECTOR, Kind, Run

__all__ = ["read_run"]

DISTILLED = "DistilledDetector"


def read_run(folder: Path, name: str = "") -> Run:
    """Read a run's files.

    Args:
        folder: output folder of the run.
        name: name in the report; empty for that of the folder.

    Raises:
        FileNotFoundError: the folder does not hold a run's config and metrics.
        ValueError: one of its files cannot be read.
    """
    name = name or folder.resolve().name
    config_file = folder / "config.yaml"
    metrics = folder / CLASSIFIER.metrics
    if not metrics.is_file():
        metrics = folder / DETECTOR.metrics
    for path in (config_file, metrics):
        if not path.is_file():
            raise FileNotFoundError(
                f"run folder must hold config.yaml and metrics.json or metrics.jsonl; "
                f"got '{folder}' without {path.name}"
            )
    config = _read_config(config_file)
    if config.get("MODEL.META_ARCHITECTURE", DISTILLED) != DISTILLED:  # its defaults mean nothing
        config = {key: x for key, x in config.items() if not key.startswith("MODEL.DISTILL.")}
    if metrics.name == CLASSIFIER.metrics:
        kind = CLASSIFIER
    else:
        kind = LAZY_DETECTOR if LAZY_DETECTOR.length in config else DETECTOR
    summary, record = (
        _read_json(path)[0] if path.is_file() else {}
        for path in (folder / "summary.json", folder / RECORD)
    )
    length = config.get(kind.length, math.inf)
    if not isinstance(length, int | float):
        raise ValueError(f"{kind.length} must be a number; got {length!r:.80} in '{config_file}'")
    history = _history(_read_json(metrics, lines=True), kind, length)
    return Run(name, folder, kind, config, history, summary, record)


def _read_config(path: Path) -> dict[str, Any]:
    tree = read_plain_yaml(path)
    if not isinstance(tree, dict):
        raise ValueError(f"config file must be a YAML mapping; got '{path}': {tree!r:.80}")
    return flat(tree)


def _read_json(path: Path, *, lines: bool = False) -> list[dict[str, Any]]:
    """The objects of a file; a last line that a killed run left unfinished is left out."""
    text = path.read_text(encoding="utf-8")
    parts = [line for line in text.split("\n") if line.strip()] if lines else [text]
    objects = []
    for number, part in enumerate(parts, start=1):
        try:
            objects.append(json.loads(part))
            if not isinstance(objects[-1], dict):
                raise ValueError(f"'{path}' must hold JSON objects; got {part!r:.80}")
        except json.JSONDecodeError as error:
            if lines and number == len(parts) and not text.endswith("\n"):
                break
            raise ValueError(f"'{path}' must hold JSON; got {part!r:.80}: {error}") from error
    return objects


def _history(
    points: list[dict[str, Any]], kind: Kind, length: float
) -> dict[int, dict[str, float]]:
    """Values by step; of steps that a resumed run repeated, the last values."""
    history: dict[int, dict[str, float]] = {}
    for point in points:
        if kind.unit not in point:
            raise ValueError(f"{kind.metrics} must name the {kind.unit} in each line; got {point}")
        # Detectron2 evaluates for the last time when its counter is already past the end.
        step = int(min(point[kind.unit] + 1 - kind.first_step, length))
        values = {key: x for key, x in point.items() if isinstance(x, int | float)}
        finite = {key: float(x) for key, x in values.items() if math.isfinite(x)}
        history.setdefault(step, {}).update(finite)
    return dict(sorted(history.items()))
