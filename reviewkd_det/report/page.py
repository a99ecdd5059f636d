"""The report: one page that needs nothing beside itself, and one picture."""

import base64
import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from reviewkd_det.report import figures, tables
from reviewkd_det.report.commands import command
from reviewkd_det.report.groups import grouped
from reviewkd_det.report.runs import Run

__all__ = ["write_page"]

# Detectron2 and matplotlib share a process: what is set for the report stays in it.
STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.h_pad": 0.1,
    "grid.alpha": 0.3,
    "svg.hashsalt": "reviewkd_det",  # the same runs give the same figures
}


def write_page(runs: Sequence[Run], page: Path, picture: Path) -> None:
    """Write the report of some runs.

    Args:
        runs: at least one; those that differ in nothing but their seed become one row.
        page: the HTML file.
        picture: the PNG file.

    Raises:
        ValueError: no run is given, or one is given twice.
    """
    if not runs:
        raise ValueError("a report must have runs; got none")
    groups = grouped(runs)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for path in (page, picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        html = environment.get_template("page.html.jinja").render(
            groups=groups,
            count=len(runs),
            command=command,
            written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            **_parts(groups),
        )
        figures.draw_summary(groups).savefig(picture, dpi=110)
    page.write_text(html, encoding="utf-8")


def _parts(groups: list[Any]) -> dict[str, Any]:
    return {
        "results": tables.result_table(groups),
        "speed": tables.speed_table(groups),
        "classes": tables.class_table(groups),
        "differences": tables.difference_tables(groups),
        "scores_figure": _embedded(figures.draw_scores(groups)),
        "losses_figure": _embedded(figures.draw_losses(groups)),
        "levels_figure": _embedded(figures.draw_levels(groups)),
        "speed_figure": _embedded(figures.draw_speed(groups)),
    }


def _embedded(figure: Figure | None) -> str:
    """A figure as the address of an image that holds it; empty without a figure."""
    if figure is None:
        return ""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"
