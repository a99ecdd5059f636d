"""The report's tables, as text."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

from reviewkd_det.report.groups import Group, teacher_name
from reviewkd_det.report.runs import Run

__all__ = [
    "Table", "class_table", "difference_tables", "matching", "result_table", "score_keys",
    "speed_table",
]  # fmt: skip

# What evaluations measure: the end of the key, and what the report calls it. The first that a run
# has is its score.
SCORES = {
    "bbox/AP": "AP",
    "bbox/AP50": "AP50",
    "bbox/AP75": "AP75",
    "segm/AP": "mask AP",
    "top1": "top-1",
    "top5": "top-5",
}


@dataclass(frozen=True)
class Table:
    """Rows of text under headers; the first cell of a row is its own header.

    Args:
        headers: of all columns.
        rows: as many cells each.
        shades: for each cell but the first of each row how dark it is, 0 to 1; may be empty.
        caption: what the table says beyond its headers.
    """

    headers: list[str]
    rows: list[list[str]]
    shades: list[list[float]] = field(default_factory=list)
    caption: str = ""


def score_keys(groups: Iterable[Group]) -> dict[str, str]:
    """The keys of the scores that any run has, and what the report calls them."""
    found = {}
    keys = dict.fromkeys(key for group in groups for run in group.runs for key in run.last)
    for end, name in SCORES.items():
        for key in keys:
            if key == end:
                found[key] = name
            elif key.endswith(f"/{end}"):  # one of several data sets
                found[key] = f"{name} on {key.removesuffix(f'/{end}')}"
    return found


def matching(groups: Iterable[Group], pattern: str) -> list[str]:
    """The keys of values that match a pattern whole, in the order of their first run."""
    runs = [run for group in groups for run in group.runs]
    return list(
        dict.fromkeys(key for run in runs for key in run.last if re.fullmatch(pattern, key))
    )


def result_table(groups: Sequence[Group]) -> Table:
    """A row per group: what it is, what it reached, what it cost."""
    units = dict.fromkeys(f"{group.first.kind.unit}s" for group in groups)
    columns: dict[str, Callable[[Group], str]] = {
        "run": lambda group: group.name,
        "seeds": lambda group: ", ".join(map(_seed, group.runs)),
        "taught by": lambda group: _taught_by(group, groups),
        "parameters": _parameters,
        " / ".join(units): _length,
        **{name: _score(key) for key, name in score_keys(groups).items()},
        "train seconds": lambda group: group.spread(_seconds, 0),
        "relative time": lambda group: _relative(group, groups),
        "GPU memory, MB": lambda group: group.spread(lambda run: run.max_memory, 0),
    }
    return _filled(groups, columns)


def speed_table(groups: Sequence[Group]) -> Table:
    """A row per group: the medians of what a step takes."""
    columns: dict[str, Callable[[Group], str]] = {
        "run": lambda group: group.name,
        "images per step": lambda group: str(group.first.batch or ""),
        "ms per step": _median("time", 0),
        "of it for data": _median("data_time", 1),
        "images/s": lambda group: group.spread(_images_per_second, 0),
        "train seconds": lambda group: group.spread(_seconds, 0),
        "seconds left": lambda group: group.spread(_seconds_left, 0),
    }
    return _filled(groups, columns)


def class_table(groups: Sequence[Group]) -> Table:
    """A row per class: its AP in each group, the mean over the seeds."""
    pattern = r"(?:(.*)/)?(bbox|segm)/AP-(.+)"
    groups = [group for group in groups if matching([group], pattern)]
    keys = matching(groups, pattern)
    values = [[_mean(group, key) for group in groups] for key in keys]
    highest = max((x for row in values for x in row if x is not None), default=0) or 1
    rows = []
    for key, row in zip(keys, values, strict=True):
        match = re.fullmatch(pattern, key)
        assert match
        dataset, kind, name = match.groups()
        name += ", mask" if kind == "segm" else ""
        name += f", {dataset}" if dataset else ""
        rows.append([name, *("" if x is None else f"{x:.1f}" for x in row)])
    shades = [[(x or 0) / highest for x in row] for row in values]
    return Table(["class", *(group.name for group in groups)], rows, shades)


def difference_tables(groups: Sequence[Group]) -> list[Table]:
    """For each kind of run a row per config key whose value differs between runs that have it."""
    tables = []
    for kind in dict.fromkeys(group.first.kind for group in groups):
        same_kind = [group for group in groups if group.first.kind == kind]
        keys = dict.fromkeys(key for group in same_kind for key in group.first.config)
        rows = [[key, *(_setting(group, key) for group in same_kind)]
                for key in sorted(keys) if key not in (kind.seed, kind.folder)]  # fmt: skip
        rows = [row for row in rows if len({cell for cell in row[1:] if cell}) > 1]
        first = [next(cell for cell in row[1:] if cell) for row in rows]
        shades = [[float(cell not in ("", x)) for cell in row[1:]]
                  for row, x in zip(rows, first, strict=True)]  # fmt: skip
        if rows:
            headers = ["key", *(group.name for group in same_kind)]
            tables.append(Table(headers, rows, shades, f"Configs of {kind.script}"))
    return tables


def _mean(group: Group, key: str) -> float | None:
    values = group.values(lambda run: run.last.get(key))
    return mean(values) if values else None


def _filled(groups: Sequence[Group], columns: dict[str, Callable[[Group], str]]) -> Table:
    """The columns that say something of at least one group."""
    cells = {header: [column(group) for group in groups] for header, column in columns.items()}
    cells = {header: column for header, column in cells.items() if any(column)}
    return Table(list(cells), [list(row) for row in zip(*cells.values(), strict=True)])


def _seed(run: Run) -> str:
    seed = run.config.get(run.kind.seed, -1)
    return "random" if seed is None or seed < 0 else str(seed)


def _taught_by(group: Group, groups: Sequence[Group]) -> str:
    methods = " + ".join(group.first.methods)
    return f"{teacher_name(group.first, groups)}, {methods}".lstrip(", ") if methods else ""


def _parameters(group: Group) -> str:
    return " or ".join(f"{x:,}" for x in dict.fromkeys(group.values(_size)))


def _size(run: Run) -> int | None:
    return run.summary.get("parameters")


def _length(group: Group) -> str:
    whole = f"{group.first.length:,}"
    if group.first.is_finished:
        return whole
    done = dict.fromkeys(f"{run.steps:,}" for run in group.runs)
    return f"{', '.join(done)} of {whole}: interrupted"


def _score(key: str) -> Callable[[Group], str]:
    return lambda group: group.spread(lambda run: run.last.get(key), 1)


def _seconds(run: Run) -> float | None:
    return run.summary.get("train_seconds")


def _relative(group: Group, groups: Sequence[Group]) -> str:
    """Training time in that of the first plain run of as many parameters; empty for that run."""
    size = _size(group.first)
    plain = [x for x in groups if not x.first.methods and _size(x.first) == size]
    if size is None or not plain or plain[0] is group:
        return ""
    seconds = [x.values(_seconds) for x in (group, plain[0])]
    return f"{mean(seconds[0]) / mean(seconds[1]):.2f}" if all(seconds) else ""


def _median(key: str, digits: int) -> Callable[[Group], str]:
    """The column of a time's median over the steps, in ms."""

    def milliseconds(run: Run) -> float | None:
        values = run.series(key).values()
        return 1000 * median(values) if values else None

    return lambda group: group.spread(milliseconds, digits)


def _images_per_second(run: Run) -> float | None:
    if counted := run.series("images_per_second").values():
        return median(counted)
    seconds = run.series("time").values()
    return run.batch / median(seconds) if run.batch and seconds else None


def _seconds_left(run: Run) -> float | None:
    return None if run.is_finished else run.last.get("eta_seconds")


def _setting(group: Group, key: str) -> str:
    values = dict.fromkeys(_written(run.config[key]) for run in group.runs if key in run.config)
    return "; ".join(values)


def _written(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
