"""The command of a run starts it as it was, or goes on with it; it never overwrites."""

import shlex

import pytest

from reviewkd_det.common.runs.run_command import run_command

GIVEN = [[], ["--resume"], ["--res"], ["--overwrite"], ["--overw"], ["--o"]]


@pytest.mark.parametrize("given", GIVEN)
def test_resume_stands_where_it_is_asked_for_and_overwrite_nowhere(given):
    arguments = ["a.py", *given, "--config-file", "b c", "SEED", "1"]
    assert shlex.split(run_command(arguments)) == [
        "python", "a.py", "--config-file", "b c", "SEED", "1",
    ]  # fmt: skip
    expected = "python a.py --resume --config-file 'b c' SEED 1"
    assert run_command(arguments, resume=True) == expected


def test_an_installed_command_is_called_by_its_name(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert run_command(["/opt/bin/reviewkd-train", "A", "1"], 2) == "reviewkd-train A 1"


@pytest.mark.parametrize(
    ("here", "processes", "launcher"),
    [
        (None, 2, "python"),
        ("1", 1, "python"),
        ("2", 2, "torchrun --nproc_per_node 2"),
        ("4", 8, "(the launcher of its 8 processes)"),
    ],
)
def test_several_processes_need_their_launcher(monkeypatch, here, processes, launcher):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if here is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    assert run_command(["a.py", "A", "1"], processes) == f"{launcher} a.py A 1"
