"""Draw the method: one training step, one fusion, one comparison.

python docs/figures/method.py        # writes docs/images/method.svg
"""

from itertools import pairwise
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

OUTPUT = Path(__file__).resolve().parents[1] / "images" / "method.svg"
# Colours of Okabe and Ito, which colour-blind readers can tell apart.
TEACHER, STUDENT, FUSION, LOSS = "#0072B2", "#009E73", "#E69F00", "#CC5500"
DARK_FUSION, INK = "#9A6500", "#222222"  # for text
TIMES = "\u00d7"
CELL = 0.28
Point = tuple[float, float]


def box(axes: Axes, centre: Point, size: Point, text: str, colour: str) -> None:
    """A rounded box with a text in it."""
    x, y = centre[0] - size[0] / 2, centre[1] - size[1] / 2
    style = "round,pad=0,rounding_size=0.15"
    patch = FancyBboxPatch((x, y), *size, boxstyle=style, fc=colour + "33", ec=colour, lw=1.5)
    axes.add_patch(patch)
    axes.text(*centre, text, ha="center", va="center", fontsize=10, color=INK)


def sign(axes: Axes, centre: Point, text: str, colour: str, radius: float = 0.3) -> None:
    """A round node."""
    axes.add_patch(Circle(centre, radius, fc="white", ec=colour, lw=1.5, zorder=3))
    axes.text(*centre, text, ha="center", va="center_baseline", fontsize=12, color=INK, zorder=4)


def grid(axes: Axes, centre: Point, cells: int, cell: float, colour: str) -> None:
    """A square map of so many cells on each side."""
    side = cells * cell
    x, y = centre[0] - side / 2, centre[1] - side / 2
    for row in range(cells):
        for column in range(cells):
            corner = (x + column * cell, y + row * cell)
            axes.add_patch(Rectangle(corner, cell, cell, fc=colour + "33", ec=colour, lw=0.6))
    axes.add_patch(Rectangle((x, y), side, side, fill=False, ec=colour, lw=1.5))


def arrow(axes: Axes, *points: Point, colour: str = INK) -> None:
    """A line through points with a head at its end."""
    for start, end in pairwise(points[:-1]):
        axes.plot(*zip(start, end, strict=True), color=colour, lw=1.5, solid_capstyle="round")
    head = FancyArrowPatch(
        *points[-2:], arrowstyle="-|>", mutation_scale=13, color=colour, lw=1.5,
        shrinkA=0, shrinkB=0,
    )  # fmt: skip
    axes.add_patch(head)


def note(axes: Axes, at: Point, text: str, **style: object) -> None:
    """A text beside what it explains."""
    axes.text(*at, text, **{"ha": "center", "va": "center", "fontsize": 9.5, "color": INK, **style})


def draw_step(axes: Axes) -> None:
    """All levels, one training step."""
    note(axes, (0.1, 12.3), "One training step", ha="left", fontsize=13, weight="bold")
    rows = {"teacher": 10.1, "loss": 7.6, "fusion": 5.2, "student": 2.3}
    for name, text, colour in [
        ("teacher", "teacher's levels,\nfrozen", TEACHER),
        ("loss", "hierarchical\ncontext loss", LOSS),
        ("fusion", "attention\nfusion", DARK_FUSION),
        ("student", "student's levels", STUDENT),
    ]:
        note(axes, (0.1, rows[name]), text, ha="left", color=colour, weight="bold", fontsize=10)
    columns = [(5.0, 8, "fine"), (8.5, 4, ""), (11.6, 2, "coarse")]
    for x, cells, name in columns:
        half = cells * CELL / 2
        grid(axes, (x, rows["teacher"]), cells, CELL, TEACHER)
        grid(axes, (x, rows["student"]), cells, CELL, STUDENT)
        sign(axes, (x, rows["loss"]), "≈", LOSS, 0.42)
        box(axes, (x, rows["fusion"]), (1.5, 0.9), "fuse", FUSION)
        arrow(axes, (x, rows["student"] + half + 0.05), (x, rows["fusion"] - 0.48))
        arrow(axes, (x, rows["fusion"] + 0.48), (x, rows["loss"] - 0.45))
        arrow(axes, (x, rows["teacher"] - half - 0.05), (x, rows["loss"] + 0.45))
        note(axes, (x, 0.75), name, style="italic")
    for (left, *_), (right, *_) in pairwise(columns):
        y = rows["fusion"]
        arrow(axes, (right - 0.77, y), (left + 0.79, y), colour=FUSION)
        note(axes, ((left + right) / 2, y + 0.35), "residual", fontsize=9)


def draw_fusion(axes: Axes) -> None:
    """One fusion."""
    left, bottom, middle, top = 14.2, 7.2, 8.9, 10.6
    note(axes, (left, 12.3), "One fusion", ha="left", fontsize=13, weight="bold")
    note(axes, (left, bottom), "student's\nlevel $s_i$", ha="left", color=STUDENT, weight="bold")
    text = "residual $r_{i+1}$\nof the coarser\nlevel"
    note(axes, (left, top), text, ha="left", color=DARK_FUSION, weight="bold")
    for y, name in [(bottom, f"1{TIMES}1"), (top, "resize")]:
        box(axes, (18.6, y), (1.5, 0.9), name, FUSION)
        arrow(axes, (17.1, y), (17.83, y))
        arrow(axes, (19.35, y), (22.97, y))
    box(axes, (21.0, middle), (1.9, 1.1), f"1{TIMES}1 and\nsigmoid", FUSION)
    arrow(axes, (21.0, bottom), (21.0, middle - 0.58))
    arrow(axes, (21.0, top), (21.0, middle + 0.58))
    note(axes, (20.1, bottom + 0.3), "$x_i$")
    gates = [(bottom, middle - 0.2, "$g^x_i$", -0.33), (top, middle + 0.2, "$g^r_i$", 0.4)]
    for y, start, name, above in gates:
        arrow(axes, (21.97, start), (23.3, start), (23.3, y + 0.33 * (1 if y < start else -1)))
        note(axes, (22.6, start + above), name)
        arrow(axes, (23.6, y), (24.9, y), (24.9, middle + 0.33 * (1 if y > middle else -1)))
        sign(axes, (23.3, y), TIMES, FUSION)
    sign(axes, (24.9, middle), "+", FUSION)
    box(axes, (26.9, middle), (1.1, 0.9), f"3{TIMES}3", FUSION)
    arrow(axes, (25.2, middle), (26.32, middle))
    arrow(axes, (26.9, middle + 0.47), (26.9, top - 0.1))
    note(axes, (26.9, top + 0.45), "$f_i$, compared\nwith $t_i$", color=LOSS, weight="bold")
    arrow(axes, (25.75, middle), (25.75, bottom - 0.3), colour=FUSION)
    text = "residual $r_i$ for\nthe finer level"
    note(axes, (25.9, bottom - 0.8), text, color=DARK_FUSION, weight="bold")


def draw_loss(axes: Axes) -> None:
    """One comparison."""
    left, y, side = 14.2, 2.7, 1.7
    note(axes, (left, 4.7), "One comparison", ha="left", fontsize=13, weight="bold")
    text = "$f_i - t_i$, pooled,\nsquared, mean"
    note(axes, (left, y), text, ha="left", color=LOSS, weight="bold")
    maps = [
        (8, "whole", "1"),
        (4, f"4{TIMES}4", "½"),
        (2, f"2{TIMES}2", "¼"),
        (1, f"1{TIMES}1", "⅛"),
    ]
    for index, (cells, name, weight) in enumerate(maps):
        x = 19.4 + 2.5 * index
        grid(axes, (x, y), cells, side / cells, LOSS)
        note(axes, (x, 1.45), name)
        note(axes, (x, 0.9), f"weight {weight}")
        if index:
            note(axes, (x - 1.25, y), "+", fontsize=14)


def main() -> None:
    """Draw all three parts and write the picture."""
    mpl.rcParams.update({"svg.hashsalt": "method", "font.family": "DejaVu Sans"})
    figure, axes = plt.subplots(figsize=(14.2, 6.4))
    axes.set(xlim=(-0.1, 28.4), ylim=(0.3, 12.8), aspect="equal")
    axes.axis("off")
    draw_step(axes)
    draw_fusion(axes)
    draw_loss(axes)
    axes.plot([13.3, 13.3], [0.6, 12.4], color="#BBBBBB", lw=1)
    axes.plot([14.2, 28.2], [5.4, 5.4], color="#BBBBBB", lw=1)
    figure.savefig(OUTPUT, bbox_inches="tight", facecolor="white", metadata={"Date": None})
    print(OUTPUT)


if __name__ == "__main__":
    main()
