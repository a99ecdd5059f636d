"""A run does not grow: neither its memory, nor its open files, nor its processes."""

from pathlib import Path

import psutil
import pytest
import torch
from detectron2.engine import HookBase
from detectron2.modeling import build_model

from reviewkd_det.common import keep_freed_memory
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.runs.from_yaml import build_trainer
from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names
from tests.d2.runs.test_not_finite import trainer as tiny_trainer

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "demo"


class Meter(HookBase):
    """Measure the process after some iterations, counted from 1."""

    def __init__(self, *iterations):
        self.iterations = iterations
        self.measured = []

    def after_step(self):
        if self.trainer.iter + 1 in self.iterations:
            process = psutil.Process()
            processes = len(process.children(recursive=True))
            memory = process.memory_info().rss / 2**20
            self.measured.append((memory, len(process.open_files()), processes))


def check(meter, tolerance):
    (memory, *counts), (memory_at_end, *counts_at_end) = meter.measured
    growth = memory_at_end / memory - 1
    print(
        f"iterations {meter.iterations}: {memory:.0f} and {memory_at_end:.0f} MB "
        f"({growth:+.2%}), open files and processes {counts} and {counts_at_end}"
    )
    assert counts_at_end == counts
    assert growth < tolerance


def test_files_and_processes_do_not_grow(tmp_path):
    run = tiny_trainer(tmp_path)
    meter = Meter(2, 6)
    run.register_hooks([meter])
    run.train()
    check(meter, tolerance=0.05)


@pytest.fixture
def demo_run(tmp_path):
    """The demo's distilled student with a teacher of random weights, not yet trained."""
    keep_freed_memory()  # as the script does
    torch.manual_seed(0)
    teacher = build_model(load_config(CONFIGS / "teacher.yaml", ["MODEL.DEVICE", "cpu"]))
    torch.save({"model": teacher.state_dict()}, tmp_path / "teacher.pth")
    opts = {
        "MODEL.DEVICE": "cpu",
        "MODEL.DISTILL.TEACHER.WEIGHTS": tmp_path / "teacher.pth",
        "MODEL.DISTILL.REVIEWKD.TEACHER_SCALE": "rms",  # its features are random
        "SOLVER.MAX_ITER": 2000,
        # How much an evaluation takes depends on how much is detected: it is looked at by itself.
        "TEST.EVAL_PERIOD": 0,
        "OUTPUT_DIR": tmp_path,
    }
    run = build_trainer(
        load_config(CONFIGS / "student.yaml", [str(x) for o in opts.items() for x in o])
    )
    run.resume_or_load(resume=False)
    return run


@pytest.mark.slow
def test_two_thousand_iterations_of_the_demo_take_no_more_memory_than_two_hundred(demo_run):
    meter = Meter(200, 2000)
    demo_run.register_hooks([meter])
    demo_run.train()
    check(meter, tolerance=0.02)


@pytest.mark.slow
def test_the_tenth_evaluation_takes_no_more_memory_than_the_second(demo_run):
    memory = []
    for _ in range(10):
        demo_run.parts.evaluate(demo_run.model)
        memory.append(psutil.Process().memory_info().rss / 2**20)
    growth = memory[-1] / memory[1] - 1
    print(f"10 evaluations: {memory[1]:.0f} and {memory[-1]:.0f} MB ({growth:+.2%})")
    assert growth < 0.02
