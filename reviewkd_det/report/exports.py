"""What exports of runs gained, as tools/export_student.py --measure has written it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from reviewkd_det.common.runs.record import GAINS
from reviewkd_det.report.runs import Run
from reviewkd_det.report.tables import Table

__all__ = ["Export", "export_tables", "find_exports", "read_export"]


class Export(NamedTuple):
    """A measured export: its name in the report, and the rows of its table by their headers."""

    name: str
    rows: list[dict[str, object]]


def read_export(folder: Path, name: str = "") -> Export | None:
    """Read what an exported folder gained; None where it was not measured.

    Raises:
        ValueError: its file cannot be read.
    """
    path = folder / GAINS
    if not path.is_file():
        return None
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' must hold JSON; got {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row for row in rows):
        raise ValueError(f"'{path}' must hold a list of rows; got {rows!s:.80}")
    return Export(name or folder.resolve().name, rows)


def find_exports(runs: Sequence[Run]) -> list[Export]:
    """The measured exports in the folders of runs."""
    found = []
    for run in runs:
        for path in sorted(run.folder.glob(f"*/{GAINS}")):
            export = read_export(path.parent, f"{run.name}, {path.parent.name}")
            found += [export] if export else []
    return found


def export_tables(exports: Sequence[Export]) -> list[Table]:
    """A table of each export."""
    return [_table(export) for export in exports]


def _table(export: Export) -> Table:
    frame = pd.DataFrame(export.rows)
    header, *_ = frame.columns
    cells = frame.map(lambda value: "" if pd.isna(value) else str(value)).set_index(header)
    return Table(cells.rename_axis(header), caption=export.name)
