"""What every command is, and what it is called where it is installed."""

import shlex
import warnings
from pathlib import Path

import pytest

from reviewkd_det.common import entry_point, find_config
from reviewkd_det.common.console import commands
from reviewkd_det.common.console.commands import ENTRY_POINTS, script_command

ROOT = Path(__file__).resolve().parents[3]


@entry_point
def failing():
    """Fail as a user's mistake does."""
    find_config("no_such.yaml")


def test_an_error_is_one_sentence_and_the_function_itself_raises_it(capsys):
    with pytest.raises(SystemExit) as stop:
        failing()
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "error: config file must exist; got 'no_such.yaml'" in line
    with pytest.raises(FileNotFoundError, match=r"got 'no_such.yaml'"):
        failing.__wrapped__()


def test_known_warnings_are_hidden_from_the_call_on_and_not_before():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")

        @entry_point
        def warning():
            warnings.warn_explicit(
                "`torch.jit.script` is deprecated.", UserWarning, "x.py", 1, "torch.jit._script"
            )

        warning.__wrapped__()
        assert len(seen) == 1
        warning()
        assert len(seen) == 1


def test_a_printed_command_is_the_entry_point_where_there_is_no_checkout(tmp_path, monkeypatch):
    assert all((ROOT / script).is_file() for script in ENTRY_POINTS)
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    for script, name in ENTRY_POINTS.items():
        program, *rest = shlex.split(script_command(script, "--config-file", "a b.yaml"))
        assert Path(program).name == name
        assert rest == ["--config-file", "a b.yaml"]


def test_the_quick_start_lists_every_entry_point():
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    for script, name in ENTRY_POINTS.items():
        assert f"| `python {script}` | `{name}` |" in page
