"""The command that goes on with a run resumes once and overwrites nothing."""

import pytest

from reviewkd_det.common.runs.resume_command import resume_command


@pytest.mark.parametrize("given", [[], ["--resume"], ["--res"], ["--overwrite"], ["--overw"],
                                   ["--o"]])  # fmt: skip
def test_resume_stands_once_and_overwrite_nowhere(given):
    arguments = ["a.py", *given, "--config-file", "b c", "SEED", "1"]
    assert resume_command(arguments) == "python a.py --resume --config-file 'b c' SEED 1"


@pytest.mark.parametrize(
    ("processes", "begin"), [(2, "torchrun --nproc_per_node 2 "), (4, "(the launcher of its 4 ")]
)
def test_several_processes_need_their_launcher(monkeypatch, processes, begin):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    command = resume_command(["a.py", "--config-file", "b"], processes)
    assert command.startswith(begin)
    assert command.endswith(" a.py --resume --config-file b")
