"""The figure of trainings of several lengths."""

import numpy as np
import pytest

from benchmarks.lengths_figure import draw_lengths


def row(name, iterations, ap, seed=1):
    return {
        "row": f"{name}, {iterations:,}",
        "iterations": iterations,
        "seed": seed,
        "scores": {"AP": ap},
    }


def timed(name, seconds):
    return {"row": name, "iterations": 500, "train_seconds": seconds}


RECORDS = [
    row("teacher", 6000, 63.0),
    row("plain", 3000, 50.0),
    *(row("labels", 3000, ap, seed) for seed, ap in ((1, 58.0), (2, 60.0))),
    row("labels", 6000, 62.0),
]


def test_lines_are_the_means_over_iterations_and_over_minutes():
    seconds = [timed("labels", 30.0), timed("labels", 31.0), timed("labels", 300.0)]
    by_iterations, by_minutes = draw_lengths(RECORDS, seconds).axes
    for axis, places in ((by_iterations, [3000, 6000]), (by_minutes, [3.1, 6.2])):
        line = axis.get_lines()[0]
        np.testing.assert_allclose(line.get_xdata(), places)
        np.testing.assert_allclose(line.get_ydata(), [59.0, 62.0])
        names = [text.get_text() for text in axis.get_legend().get_texts()]
        assert names == ["labels", "teacher"]  # plain has one length alone


def test_a_line_without_timed_runs_is_refused():
    with pytest.raises(ValueError, match="each line must have a timed run; got none of labels"):
        draw_lengths(RECORDS, [timed("plain", 20.0)])
