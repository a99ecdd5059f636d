"""`tools/visualize.py` as a user runs it."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.modeling import build_model

from reviewkd_det.commands.visualize import named_runs
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from tests.d2 import scenes, tiny

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "visualize.py"


def call(monkeypatch, *arguments):
    """Run the script; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["visualize.py", *map(str, arguments)])
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture
def run(tmp_path):
    """A folder that looks like a run's."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    return tmp_path / "run"


def test_bad_arguments_end_in_one_sentence(run, tmp_path, monkeypatch, capsys):
    rest = ["--output", tmp_path / "out"]
    cases = [
        (
            ["--run", tmp_path],
            rf"config file must exist; got '{tmp_path}/config.yaml', which --run",
        ),
        (["--run", run, "--run", f"run={run}"], "--run names must differ; got 'run' twice"),
        (["--run", f"a/b={run}"], f"must have a name without '/'; got 'a/b={run}'"),
        (["--run", f"={run}"], f"must have a name without '/'; got '={run}'"),
        (["--run", run, "--count", "0"], "--count must be at least 1; got 0"),
        (["--run", run, "--score", "1.5"], "--score must be from 0 to 1; got 1.5"),
        (["--run", run, "--images", "no.png"], "--images must name what exists; got 'no.png'"),
    ]
    for arguments, words in cases:
        assert call(monkeypatch, *arguments, *rest) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("visualize.py: error: ")
        assert words in line
    both = ["--run", run, "--dataset", "x", "--images", run]
    assert call(monkeypatch, *both, *rest) == 2
    assert "not allowed with argument --dataset" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_arguments_are_found_before_anything_heavy_is_imported(run, tmp_path):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['v', '--run', {str(run)!r}, '--count', '0', '--output', 'x']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 1\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)


def test_a_folder_is_called_by_its_own_name_or_a_given_one(run, tmp_path):
    equal = tmp_path / "lr=0.1"
    equal.mkdir()
    (equal / "config.yaml").touch()
    assert named_runs([f"{run}/", f"my run={run}", str(equal)]) == {
        "run": run,
        "my run": run,
        "lr=0.1": equal,
    }


def test_the_pictures_of_a_run_are_named(tmp_path, monkeypatch, capsys):
    tree = tiny.detector(tiny.R_CNN, width=4, pyramid=8, **scenes.run_tree(tmp_path, "visualized"))
    config = tiny.write(tmp_path / "config.yaml", tree)
    model = build_model(load_config(config))
    StudentCheckpointer(model, str(tmp_path), key="").save("model_final", trainer={}, iteration=1)
    arguments = ["--run", f"mine={tmp_path}", "--count", 3, "--output", tmp_path / "out"]
    assert call(monkeypatch, *arguments) == 0
    names = [f"predictions_{i}.png" for i in range(3)]
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / name) for name in names]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
