"""The demos' trainings: commands that are printed, followed and checked."""

import json
import shlex
import sys

import pytest

from reviewkd_det.demo import trainings
from reviewkd_det.demo.trainings import Trainings, comparison_table, write_summary

# A stand-in for a script: it logs, and leaves a summary or fails as its options say.
SCRIPT = """
import json, pathlib, sys
options = dict(zip(sys.argv[4::2], sys.argv[5::2]))
print("iter: 3  total_loss: 1.5", flush=True)
if "FAIL" in options:
    sys.exit("SOLVER must be mended; got " + options["FAIL"])
folder = pathlib.Path(options["OUTPUT_DIR"])
folder.mkdir(parents=True)
(folder / "summary.json").write_text(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make trainings of a stand-in for a script."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(
        trainings, "script_command", lambda _, *words: shlex.join(
            [sys.executable, str(script), *map(str, words)]
        ),
    )  # fmt: skip

    def make(*opts, follow=None, write=lambda line: None):
        return Trainings("tools/x.py", "configs/demo", tmp_path / "out", opts, follow, write)

    return make


def test_a_training_is_one_printed_command_with_the_options_of_all_before_its_own(make, tmp_path):
    printed, seen = [], []
    words = make("SEED", "3", follow=seen.append, write=printed.append).train("a", "r", "KEY", "()")
    folder = str(tmp_path / "out" / "a")
    assert words[:2] == ["--config-file", "configs/demo/r.yaml"]
    assert words[3:] == ["OUTPUT_DIR", folder, "SEED", "3", "KEY", "()"]
    (line,) = printed
    assert line.startswith("\na: ")
    assert shlex.split(line)[3:] == words
    assert seen == ["iter: 3  total_loss: 1.5\n"]


@pytest.mark.parametrize("follow", [None, lambda line: None])
def test_a_training_that_fails_is_named_with_its_last_line(make, follow):
    last = ": SOLVER must be mended; got x" if follow else "$"
    with pytest.raises(RuntimeError, match=f"'a' must succeed; got exit code 1{last}"):
        make("FAIL", "x", follow=follow).train("a", "r")


def test_the_summary_is_what_all_trainings_came_to(tmp_path):
    write_summary(tmp_path, {"a": {"AP": 1.5}})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"a": {"AP": 1.5}}


def test_numbers_stand_at_the_right_of_their_columns():
    lines = comparison_table(["run", "AP"], [["plain", "9.5"], ["distilled", "12.0"]]).splitlines()
    assert lines[2] == "| plain     |  9.5 |"
    assert lines[3] == "| distilled | 12.0 |"
