"""A queue of trainings: its order, what it skips and goes on with, and what it keeps."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from benchmarks import run_queue
from tests.benchmarks.test_records import finished

QUEUE = """
config: configs/demo/student.yaml
options: {TEST.EVAL_PERIOD: 0, MODEL.MASK_ON: true}
seeds: [1, 2]
runs:
  - {row: "plain, 40", options: {MODEL.DISTILL.METHODS: []}}
  - {row: teacher, config: configs/demo/teacher.yaml, seeds: [1]}
  - row: taught
    options: {MODEL.DISTILL.TEACHER.WEIGHTS: "{output}/teacher_{seed}/model_final.pth"}
"""


@pytest.fixture
def queue(tmp_path):
    path = tmp_path / "queue.yaml"
    path.write_text(QUEUE)
    return run_queue.read_queue(path, tmp_path / "out")


@pytest.fixture
def trained(monkeypatch):
    """The commands that were run; each leaves a finished run, or fails at its row's name."""
    commands = []
    fails = set()

    def train(command, **_):
        commands.append(command)
        folder = command[command.index("OUTPUT_DIR") + 1]
        if any(name in folder for name in fails):
            return SimpleNamespace(returncode=1)
        shutil.rmtree(folder)
        finished(run_queue.Path(folder), seed=int(command[command.index("SEED") + 1]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", train)
    return SimpleNamespace(commands=commands, fails=fails)


def rows(path):
    return [(x["row"], x["seed"]) for x in json.loads(path.read_text())]


def test_the_first_seed_of_all_rows_comes_first(queue, tmp_path):
    assert [(run.row, run.seed) for run in queue] == [
        ("plain, 40", 1), ("teacher", 1), ("taught", 1), ("plain, 40", 2), ("taught", 2),
    ]  # fmt: skip
    assert queue[0].folder == tmp_path / "out" / "plain_40_1"
    words = queue[-1].command
    assert words[words.index("MODEL.MASK_ON") + 1] == "True"
    assert words[-1] == f"{tmp_path}/out/teacher_2/model_final.pth"
    assert "configs/demo/teacher.yaml" in queue[1].command


def test_a_run_with_a_record_is_skipped_and_one_that_was_stopped_goes_on(queue, trained, tmp_path):
    records = tmp_path / "records.json"
    run_queue.run_queue(queue[:1], records, timed=False, commit=False)
    queue[1].folder.mkdir(parents=True)
    (queue[1].folder / "model_0000019.pth").touch()
    assert run_queue.run_queue(queue, records, timed=False, commit=False) == []
    assert rows(records) == [(run.row, run.seed) for run in queue]
    assert len(trained.commands) == len(queue)
    assert ["--resume" in command for command in trained.commands] == [
        False,
        True,
        False,
        False,
        False,
    ]


def test_a_failure_leaves_the_others_and_is_named(queue, trained, tmp_path):
    records = tmp_path / "records.json"
    trained.fails.add("taught")
    failed = run_queue.run_queue(queue, records, timed=True, commit=False)
    assert failed == ["taught, seed 1", "taught, seed 2"]
    assert rows(records) == [("plain, 40", 1), ("teacher", 1), ("plain, 40", 2)]
    assert "train_seconds" in json.loads(records.read_text())[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: [{row: a, optons: {}}]", "optons"),
        ("runs: [{row: a}, {row: a}]", "once"),
        ("runs: [{row: a, options: {SEED: 2}}]", "by its key seeds"),
    ],
)
def test_a_queue_that_cannot_be_meant_is_refused(tmp_path, text, message):
    path = tmp_path / "queue.yaml"
    path.write_text(f"seeds: [1]\n{text}")
    with pytest.raises(ValueError, match=message):
        run_queue.read_queue(path, tmp_path)
