"""The scripts' arguments: those of Detectron2, and nothing heavy before they are right."""

import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.engine import default_argument_parser

from classification import evaluate, train
from reviewkd_det.commands import export
from reviewkd_det.common import check_config_file, parse_run_args, run_parser

ROOT = Path(__file__).resolve().parents[3]
# Runs a script and then says what it has imported of what takes seconds to import.
SPY = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stop:
    code = stop.code or 0
heavy = {"accelerate", "detectron2", "matplotlib", "sklearn", "torch"} & set(sys.modules)
print("imported:", *sorted(heavy))
sys.exit(code)
"""
TRAINING = ["tools/train_net.py", "tools/lazyconfig_train_net.py"]
CLASSIFICATION = [f"classification/{name}.py" for name in ("train", "evaluate")]
EXPORT = ["tools/export_student.py"]
# The set-up takes no arguments; the benchmark still imports first.
OTHERS = {"tools/setup_detectron2.py", "tools/benchmark.py"}
SCRIPTS = {
    str(path.relative_to(ROOT))
    for folder in ("tools", "classification")
    for path in (ROOT / folder).glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
}


def spied(script, *arguments):
    """Exit code and last line of the errors of a script that has imported nothing heavy."""
    done = subprocess.run(
        [sys.executable, "-c", SPY, script, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "imported:", done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, "".join(done.stderr.splitlines()[-1:])


def described(parser):
    """What a parser takes, all but its help."""
    kept = ("option_strings", "dest", "nargs", "const", "default", "type", "required", "metavar")
    return {
        action.dest: [type(action), *(getattr(action, name) for name in kept)]
        for action in parser._actions
    }


def test_the_arguments_are_those_of_detectron2():
    assert described(run_parser()) == described(default_argument_parser())


@pytest.mark.parametrize(
    "command",
    ["", "--config-file a.yaml A 1 --resume", "--num-gpus 2 --machine-rank 1 --eval-only a=b"],
)
def test_a_command_is_read_as_detectron2_reads_it(command):
    ours, theirs = (
        p.parse_args(command.split()) for p in (run_parser(), default_argument_parser())
    )
    assert ours == theirs


@pytest.mark.parametrize("script", sorted(SCRIPTS - OTHERS))
def test_help_and_an_unknown_option_import_nothing_heavy(script):
    assert spied(script, "--help") == (0, "")
    code, line = spied(script, "--no-such-option")
    assert code == 2
    assert line.startswith(f"{Path(script).name}: error: ")


@pytest.mark.parametrize("script", [*TRAINING, *EXPORT, *CLASSIFICATION])
def test_a_missing_config_file_imports_nothing_heavy(script):
    extra = ["--output", "nowhere"] if script in EXPORT else []
    code, line = spied(script, "--config-file", "no.py", *extra)
    assert code == 1
    assert line.startswith(f"{Path(script).name}: error: config file must exist; got 'no.py'")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--config-file must name a config file"),
        (["--num-gpus", "0"], "--num-gpus must be at least 1; got 0"),
        (["--num-gpus", "x"], "argument --num-gpus: invalid int value: 'x'"),
        (["--resume", "--overwrite"], "--resume and --overwrite must not be given together"),
    ],
)
def test_wrong_arguments_are_refused(monkeypatch, capsys, arguments, words):
    config = ["--config-file", "x.yaml"] if arguments else []
    monkeypatch.setattr(sys, "argv", ["train_net.py", *config, *arguments])
    with pytest.raises(SystemExit) as stop:
        parse_run_args()
    assert stop.value.code == 2
    assert f"train_net.py: error: {words}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "parse", [parse_run_args, train.parse_args, evaluate.parse_args, export.parse_args]
)
def test_a_flag_after_the_pairs_is_refused(monkeypatch, capsys, parse):
    output = ["--output", "out"] if parse is export.parse_args else []
    words = ["--config-file", __file__, *output, "A", "-1", "--resume"]
    monkeypatch.setattr(sys, "argv", ["script.py", *words])
    with pytest.raises(SystemExit) as stop:
        parse()
    assert stop.value.code == 2
    assert "error: --resume must stand before all KEY VALUE pairs" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["script.py", *words[:-1]])
    assert parse().opts == ["A", "-1"]


def test_a_python_config_is_asked_for_before_it_is_looked_for(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lazyconfig_train_net.py", "--config-file", "no.yaml"])
    with pytest.raises(ValueError, match=r"must be a Python config; got 'no.yaml'"):
        parse_run_args(python_config=True)


def test_a_missing_config_file_is_named(tmp_path):
    check_config_file(__file__)
    with pytest.raises(FileNotFoundError, match=r"config file must exist; got '.*no.yaml', here"):
        check_config_file(tmp_path / "no.yaml", ", here")
    with pytest.raises(FileNotFoundError, match="config file must exist; got"):
        check_config_file(tmp_path)


def test_a_right_command_is_returned(monkeypatch, tmp_path):
    path = tmp_path / "a.yaml"
    path.touch()
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--config-file", str(path), "A.B", "1"])
    args = parse_run_args()
    assert (args.config_file, args.opts, args.overwrite) == (str(path), ["A.B", "1"], False)
