"""What is printed to be pasted."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from reviewkd_det.common.console.commands import script_command, shown_path

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("arguments", [["a b/c"], ["--run", "it's $HOME"], ["MODEL.X", "()"]])
def test_a_command_line_survives_the_shell(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(ROOT)
    line = script_command("tools/demo.py", *arguments)
    assert shlex.split(line)[1:] == ["tools/demo.py", *arguments]
    echoed = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True)
    assert echoed.stdout.splitlines()[2:] == arguments


def test_a_script_is_found_from_any_folder_by_the_same_interpreter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = script_command("tools/report.py", "--help")
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("PATH", "/nowhere")
    assert shlex.split(script_command("tools/report.py"))[0] == sys.executable


def test_paths_inside_the_working_directory_are_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "run" / "a.pth") == "run/a.pth"
    assert shown_path("run/a.pth") == "run/a.pth"
    assert shown_path("/elsewhere/a.pth") == "/elsewhere/a.pth"
