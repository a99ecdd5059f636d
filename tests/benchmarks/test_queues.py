"""The queues that are shipped: every run of each is a config that can be read."""

from pathlib import Path

import pytest

from benchmarks.run_queue import read_queue
from classification.config import load_config as load_classification
from reviewkd_det.core import find_method
from reviewkd_det.d2.config import load_config

QUEUES = Path(__file__).parents[2] / "benchmarks" / "queues"


@pytest.mark.parametrize("queue", sorted(QUEUES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_run_can_be_read(queue, monkeypatch):
    monkeypatch.chdir(QUEUES.parents[1])
    for run in read_queue(queue, Path("output", queue.stem)):
        at = run.command.index("--config-file") + 1
        config, *options = run.command[at:]
        if "classification" in run.command[at - 2]:
            names = load_classification(config, options).DISTILL.METHODS
        else:
            names = load_config(config, options).MODEL.DISTILL.METHODS
        assert all(find_method(name) for name in names), run.row
