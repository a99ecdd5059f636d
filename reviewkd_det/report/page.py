"""The report: one page that needs nothing beside itself, and one picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from reviewkd_det.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from reviewkd_det.report.exports import Export

__all__ = ["write_page"]


def write_page(
    runs: Sequence[Run], page: Path, picture: Path, exports: Sequence[Export] = ()
) -> None:
    """Write the report of some runs.

    Args:
        runs: at least one; those that differ in nothing but their seed become one row.
        page: HTML file to write.
        picture: PNG file to write.
        exports: measured exports beside those in the folders of the runs.

    Raises:
        ValueError: no run is given, or one is given twice.
    """
    if not runs:
        raise ValueError("a report must have runs; got none")
    # These take seconds to import.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from reviewkd_det.report import exports as measured
    from reviewkd_det.report import figures, tables
    from reviewkd_det.report.groups import group_runs, tidy_values

    groups = group_runs(runs)
    values = tidy_values(groups)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for path in (page, picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    with figures.style():
        html = environment.get_template("page.html.jinja").render(
            groups=groups,
            count=len(runs),
            written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            results=tables.result_table(groups, values),
            speed=tables.speed_table(groups, values),
            classes=tables.class_table(groups, values),
            exports=measured.export_tables([*measured.find_exports(runs), *exports]),
            differences=tables.difference_tables(groups),
            scores_figure=_embedded(figures.draw_scores(groups, values)),
            losses_figure=_embedded(figures.draw_losses(groups, values)),
            levels_figure=_embedded(figures.draw_levels(groups, values)),
            effects_figure=_embedded(figures.draw_effects(groups, values)),
            speed_figure=_embedded(figures.draw_speed(groups, values)),
        )
        figures.draw_summary(groups, values).savefig(picture, dpi=110)
    page.write_text(html, encoding="utf-8")


def _embedded(figure: Figure | None) -> str:
    """A figure as the address of an image that holds it; empty without a figure."""
    if figure is None:
        return ""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"
