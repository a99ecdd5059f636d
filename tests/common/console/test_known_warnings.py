"""Warnings that nobody can act on are hidden, and no others."""

import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from classification.models import create_model
from classification.models.weights import save_weights
from reviewkd_det.common import hide_known_warnings
from tests.classification.running import command
from tests.d2 import scenes, tiny
from tests.scripts import run as run_script

ROOT = Path(__file__).resolve().parents[3]
MESHGRID = "torch.meshgrid: in an upcoming release, it will be required to pass the indexing"
TRACING = "is_fx_tracing will return true for both fx.symbolic_trace and torch.export."
# As Python, torch and Detectron2's logs begin a warning; our own are sentences for the user.
LINE = re.compile(r"\w*Warning: |^W\d{4} |^\[rank\d\]:W|WARNING(?!.* reviewkd_det)", re.MULTILINE)


@pytest.mark.parametrize(
    ("message", "module", "shown"),
    [
        (MESHGRID, "torch.functional", False),
        (MESHGRID, "torch.functional_other", True),
        (MESHGRID, "own_code", True),
        ("torch.meshgrid: indices must fit", "torch.functional", True),
        ("`torch.jit.script` is deprecated. Please", "torch.jit._script", False),
        (
            "Creating a tensor from a list of numpy.ndarrays",
            "detectron2.structures.keypoints",
            False,
        ),
        ("`broadcast_buffers` is deprecated. Use", "detectron2.engine.defaults", False),
        ("`broadcast_buffers` is deprecated. Use", "own_code", True),
    ],
)
def test_message_and_module_must_both_be_known(message, module, shown):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        hide_known_warnings()
        warnings.warn_explicit(message, FutureWarning, "file.py", 1, module=module)
    assert len(seen) == shown


@pytest.mark.parametrize(
    ("name", "message", "shown"),
    [
        ("torch.fx._symbolic_trace", TRACING, False),
        ("torch.fx._symbolic_trace", "cannot be traced", True),
        ("torch.utils.cpp_extension", "No CUDA runtime is found, using CUDA_HOME='/x'", False),
        ("torch.utils.cpp_extension", "no compiler is found", True),
    ],
)
def test_a_logged_warning_must_be_known_too(name, message, shown):
    hide_known_warnings()
    record = logging.LogRecord(name, logging.WARNING, "file.py", 1, message, (), None)
    assert bool(logging.getLogger(name).filter(record)) == shown


def test_hiding_twice_is_hiding_once():
    hide_known_warnings()
    filters = list(warnings.filters), list(logging.getLogger("torch.fx._symbolic_trace").filters)
    hide_known_warnings()
    again = list(warnings.filters), list(logging.getLogger("torch.fx._symbolic_trace").filters)
    assert again == filters


def plain_environment():
    """As a user has it."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}


@pytest.mark.slow
def test_two_processes_train_a_detector_without_a_warning_of_others(tmp_path):
    tree = scenes.run_tree(tmp_path, "scenes_without_warnings", IMS_PER_BATCH=4, STEPS=[])
    tiny.save_teacher(tmp_path)
    config = tiny.save_student(tmp_path, **tree)
    arguments = ["tools/train_net.py", "--num-gpus", "2", "--dist-url", "auto"]
    done = subprocess.run(
        [sys.executable, *arguments, "--config-file", str(config),
         "MODEL.DISTILL.METHODS", '("ReviewKD", "DKD")'],
        cwd=ROOT, env=plain_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "Done: 2 iterations" in output
    assert not LINE.search(output), [x for x in output.splitlines() if LINE.search(x)]


def test_a_classifier_is_distilled_without_a_warning_of_others(tmp_path):
    weights = tmp_path / "teacher.pth"
    save_weights(create_model("resnet8", num_classes=10).state_dict(), weights)
    teacher = ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", str(weights)]
    arguments = command(tmp_path / "run", "SOLVER.EPOCHS", "1", *teacher, config="student")
    done = run_script(*arguments, **plain_environment())
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "Done: resnet8, 1 epochs" in output
    assert not LINE.search(output), [x for x in output.splitlines() if LINE.search(x)]


@pytest.mark.parametrize(
    "line",
    [
        "x/torch/functional.py:504: UserWarning: torch.meshgrid: in an upcoming release",
        "W1121 16:40:00.1 28475 torch/fx/_symbolic_trace.py:57] is_fx_tracing will return",
        "WARNING [11/21 16:47:28 d2.solver.build]: SOLVER.STEPS contains values",
    ],
)
def test_the_lines_are_known(line):
    assert LINE.search(f"something\n{line}\n")
    assert not LINE.search("WARNING [11/21 16:46:47 reviewkd_det.d2.meta_arch]: loss_reviewkd is")
