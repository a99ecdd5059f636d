"""The report's tables: text by group, made of the runs and of the table of all their values."""

import json
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

import pandas as pd

from reviewkd_det.report.groups import Groups, name_teacher
from reviewkd_det.report.runs import Run

__all__ = [
    "Table", "class_table", "difference_tables", "name_scores", "result_table", "speed_table",
    "spread",
]  # fmt: skip

# What evaluations measure: the end of the key, and its name in the report. The first that a run
# has is its score.
SCORES = {
    "bbox/AP": "AP",
    "bbox/AP50": "AP50",
    "bbox/AP75": "AP75",
    "segm/AP": "mask AP",
    "keypoints/AP": "keypoint AP",
    "panoptic_seg/PQ": "PQ",
    "sem_seg/mIoU": "mIoU",
    "sem_seg/IoU": "IoU",
    "top1": "top-1",
    "top5": "top-5",
}
CLASS_KEY = r"^(?:(?P<data>.*)/)?(?P<kind>bbox|segm)/AP-(?P<name>.+)$"


class Table(NamedTuple):
    """Text in rows and columns.

    Args:
        cells: text of each cell; the name of the index is the header of the first column.
        shades: darkness of each cell, 0 to 1; None for no shades.
        caption: what the table says beyond its headers.
    """

    cells: pd.DataFrame
    shades: pd.DataFrame | None = None
    caption: str = ""


def spread(values: Sequence[float | None], form: str) -> str:
    """The mean of the known values, and the standard deviation of several, as text."""
    known = [x for x in values if x is not None and not pd.isna(x)]
    if not known:
        return ""
    text = f"{mean(known):{form}}"  # exact, so the last digit does not depend on rounding errors
    return f"{text} ± {stdev(known):{form}}" if len(known) > 1 else text


def name_scores(values: pd.DataFrame) -> dict[str, str]:
    """The keys of the scores that any run has, and their names in the report."""
    found = {}
    for end, name in SCORES.items():
        for key in values["key"].unique():
            if key == end:
                found[key] = name
            elif key.endswith(f"/{end}"):  # one of several data sets
                found[key] = f"{name} on {key.removesuffix(f'/{end}')}"
    return found


def result_table(groups: Groups, values: pd.DataFrame) -> Table:
    """A row per group: what it is, what it reached, what it cost."""
    facts = _facts(groups, values)
    by_group = facts.groupby("run", sort=False)
    units = " / ".join(dict.fromkeys(f"{x.kind.unit}s" for runs in groups.values() for x in runs))
    columns = {
        "seeds": by_group["seed"].agg(", ".join),
        "taught by": by_group["taught by"].first(),
        "parameters": by_group["parameters"].agg(_different),
        units: by_group["length"].agg(_different),
        **{name: by_group[key].agg(spread, ".1f") for key, name in name_scores(values).items()},
        "train seconds": by_group["train_seconds"].agg(spread, ",.0f"),
        "relative time": _relative_time(facts),
        "GPU memory, MB": by_group["max_memory_mb"].agg(spread, ",.0f"),
    }
    return _filled(columns, groups)


def speed_table(groups: Groups, values: pd.DataFrame) -> Table:
    """A row per group: the medians of what a step takes."""
    by_group = _facts(groups, values).groupby("run", sort=False)
    columns = {
        "images per step": by_group["batch"].agg(_different),
        "ms per step": by_group["step_ms"].agg(spread, ",.0f"),
        "of it for data": by_group["data_ms"].agg(spread, ",.1f"),
        "images/s": by_group["images_per_second"].agg(spread, ",.0f"),
        "train seconds": by_group["train_seconds"].agg(spread, ",.0f"),
        "seconds left": by_group["seconds_left"].agg(spread, ",.0f"),
    }
    return _filled(columns, groups)


def class_table(groups: Groups, values: pd.DataFrame) -> Table:
    """A row per class: its AP in each group, the mean over the seeds."""
    parts = values["key"].str.extract(CLASS_KEY)
    if parts["name"].isna().all():
        return Table(pd.DataFrame())
    named = parts["name"] + parts["kind"].map({"bbox": "", "segm": ", mask"})
    named += (", " + parts["data"]).fillna("")
    last = values.assign(name=named).dropna(subset="name").groupby(["run", "group", "name"])
    scores = last["value"].last().groupby(["name", "group"]).mean().unstack()
    order = named.dropna().unique()
    scores = scores.reindex(index=order, columns=[x for x in groups if x in scores])
    cells = scores.map(lambda x: "" if pd.isna(x) else f"{x:.1f}").rename_axis("class")
    return Table(cells, (scores / (scores.max(axis=None) or 1)).fillna(0))


def difference_tables(groups: Groups) -> list[Table]:
    """For each kind of run a row per config key whose value differs between runs that have it."""
    tables = []
    for kind in dict.fromkeys(runs[0].kind for runs in groups.values()):
        same_kind = {name: runs for name, runs in groups.items() if runs[0].kind == kind}
        rows = {name: _settings(runs) for name, runs in same_kind.items()}
        texts = pd.DataFrame(rows).drop(index=[kind.seed, kind.folder], errors="ignore")
        texts = texts[texts.nunique(axis=1) > 1].sort_index().rename_axis("key")
        if len(texts):
            first = texts.bfill(axis=1).iloc[:, 0]
            shades = (texts.notna() & texts.ne(first, axis=0)).astype(float)
            tables.append(Table(texts.fillna(""), shades, f"Configs of {kind.script}"))
    return tables


def _facts(groups: Groups, values: pd.DataFrame) -> pd.DataFrame:
    """A row per run: what the tables say of it, numbers as numbers; "run" is its group."""
    by_key = values.groupby(["run", "key"])["value"]
    last, medians = by_key.last().unstack(), by_key.median().unstack()
    rows = [
        {
            "folder": str(run.folder),
            "run": name,
            "seed": run.seed,
            "taught by": ", ".join(filter(None, [name_teacher(run, groups), *_methods(run)])),
            "is_plain": not run.methods,
            "length": _length(run),
            "batch": run.batch,
            "is_finished": run.is_finished,
            **{x: run.summary.get(x) for x in ("parameters", "train_seconds", "max_memory_mb")},
        }
        for name, members in groups.items()
        for run in members
    ]
    facts = pd.DataFrame(rows).set_index("folder").join(last[list(name_scores(values))])
    seconds, waiting, counted, left = (
        medians.get(key, pd.Series(dtype=float)).reindex(facts.index)
        for key in ("time", "data_time", "images_per_second", "eta_seconds")
    )
    facts["images_per_second"] = counted.fillna(pd.to_numeric(facts["batch"]) / seconds)
    facts["seconds_left"] = last.get("eta_seconds", left).where(~facts["is_finished"])
    return facts.assign(step_ms=1000 * seconds, data_ms=1000 * waiting)


def _filled(columns: dict[str, Any], groups: Groups) -> Table:
    """The columns that say something of at least one group."""
    cells = pd.DataFrame(columns).reindex(list(groups)).fillna("").rename_axis("run")
    return Table(cells.loc[:, (cells != "").any()])


def _different(values: pd.Series) -> str:
    """All different values, as text."""
    known = values.dropna().unique()
    return " or ".join(x if isinstance(x, str) else f"{x:,.0f}" for x in known)


def _methods(run: Run) -> list[str]:
    return [" + ".join(run.methods)] if run.methods else []


def _length(run: Run) -> str:
    whole = f"{run.length:,}"
    return whole if run.is_finished else f"{run.steps:,} of {whole}: interrupted"


def _relative_time(facts: pd.DataFrame) -> pd.Series:
    """Training time in that of the first plain group of as many parameters; empty for that one."""
    by_group = facts.groupby("run", sort=False)
    seconds = pd.to_numeric(facts["train_seconds"]).groupby(facts["run"], sort=False).mean()
    sizes, plain = by_group["parameters"].first(), by_group["is_plain"].first()
    ratios = {}
    for name, size in sizes.items():
        same_size = sizes[(sizes == size) & plain].index
        if len(same_size) and same_size[0] != name:
            ratios[name] = seconds[name] / seconds[same_size[0]]
    texts = {name: f"{ratio:.2f}" for name, ratio in ratios.items() if pd.notna(ratio)}
    return pd.Series(texts, dtype=object)


def _settings(runs: Sequence[Run]) -> dict[str, str]:
    """The value of each config key of a group's runs, as text."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for key, value in run.config.items():
            is_text = isinstance(value, str) and value
            text = value if is_text else json.dumps(value, ensure_ascii=False)
            found.setdefault(key, {})[text] = None
    return {key: "; ".join(texts) for key, texts in found.items()}
