"""The figure and the table of trainings of several lengths."""

import numpy as np
import pytest

from benchmarks.lengths import time_table
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


def test_the_time_is_that_of_the_shortest_schedule_whose_mean_is_near_the_best_of_a_reference():
    means = {
        "labels": {3000: 58.0, 6000: 62.0, 12000: 63.0},
        "all": {3000: 62.4, 6000: 62.6, 12000: 66.0},
        "plain": {3000: 50.0, 6000: 62.4},
    }
    records = [
        row(name, iterations, mean + spread, seed)
        for name, lengths in means.items()
        for iterations, mean in lengths.items()
        for seed, spread in ((1, -1.0), (2, 0.0), (3, 1.0))
    ]
    records.append(row("all", 1500, 70.0))  # one seed alone is no mean
    seconds = [timed("labels", 30.0), timed("all", 60.0), timed("plain", 20.0)]
    head, _, *lines = time_table(records, seconds, "labels").splitlines()
    assert "at least 62.5 AP" in head
    assert [[x.strip() for x in line.strip("|").split("|")] for line in lines] == [
        ["labels", "12,000", "63.0", "12.0"],
        ["all", "6,000", "62.6", "12.0"],
        ["plain", "none", "", ""],
    ]
