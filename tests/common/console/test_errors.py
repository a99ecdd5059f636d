"""What a command-line user sees of an error: a sentence, or the place of a defect."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from fvcore.common.config import CfgNode
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from torch.utils.data import DataLoader

from reviewkd_det.common import (
    check_config_file,
    keep_tracebacks_in,
    merge_options,
    one_sentence_errors,
)
from reviewkd_det.common.console import errors
from reviewkd_det.common.weights.plain_pickle import read_plain_pickle

HERE = Path(__file__)


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """The folder of a run, whose tracebacks are kept there."""
    monkeypatch.setattr(errors, "_folder", [])
    keep_tracebacks_in(tmp_path)
    return tmp_path


@pytest.fixture
def shown(monkeypatch, capsys):
    """What a command line prints of what a function raises."""

    def show(function):
        monkeypatch.setattr(sys, "argv", ["/some/where/train.py", "--option"])
        with pytest.raises(SystemExit) as stop:
            one_sentence_errors(function)
        output = capsys.readouterr()
        assert stop.value.code == 1
        assert output.out == ""
        assert output.err.count("\n") == 1
        name, _, words = output.err.rstrip("\n").partition(": error: ")
        assert name == "train.py"
        return words

    return show


def raised(error):
    raise error


def in_a_worker(function):
    """A data loader's worker process that calls a function."""

    class Data:
        def __len__(self):
            return 1

        def __getitem__(self, _):
            return function()

    list(DataLoader(Data(), num_workers=1, multiprocessing_context="fork"))


def in_two_processes(function):
    """A process of a run whose data loader's worker calls a function."""
    torch.multiprocessing.start_processes(
        _in_one_of_two, args=(function,), nprocs=1, start_method="fork"
    )


def _in_one_of_two(_, function):
    in_a_worker(function)


def directly(function):
    function()


def defect():
    return [][3]


def no_file():
    check_config_file("no.yaml")


CALLERS = [directly, in_a_worker, in_two_processes]


@pytest.mark.parametrize("call", CALLERS)
def test_what_our_packages_raise_is_one_sentence(run_folder, shown, call):
    assert shown(lambda: call(no_file)) == "config file must exist; got 'no.yaml'"
    assert not list(run_folder.iterdir())


@pytest.mark.parametrize("call", CALLERS)
def test_a_defect_is_named_with_its_place_and_its_traceback_is_kept(run_folder, shown, call):
    words = shown(lambda: call(defect))
    (file,) = run_folder.iterdir()
    line = defect.__code__.co_firstlineno + 1
    assert words == (
        f"IndexError: list index out of range ({HERE}:{line}); the traceback is in {file}"
    )
    text = file.read_text()
    assert "return [][3]" in text
    assert text.count("Traceback") >= 1


def test_a_key_error_of_ours_has_no_quotes_around_it(shown):
    words = shown(lambda: merge_options(CfgNode({"A": 1}), ["B", "2"], "the test"))
    assert re.fullmatch(r"[\w ]+ must be known; got B in the test.*[^']", words)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a must be 1; got 2"),  # of a user's own code
        AssertionError(),
        RuntimeError("two\n  lines\n\n"),
        TypeError("bad"),
        KeyError("bad"),
        torch.OutOfMemoryError("full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_others_raise_is_named_with_its_kind(run_folder, shown, error):
    words = shown(lambda: raised(error))
    name, message = type(error).__name__, " ".join(str(error).replace("'", "").split())
    assert words.startswith(f"{name}: {message} (" if message else f"{name} (")
    assert f"{HERE}:{raised.__code__.co_firstlineno + 1}" in words
    assert "Traceback" in next(run_folder.iterdir()).read_text()


def test_a_defect_called_by_our_packages_is_none_of_their_sentences(run_folder, shown, tmp_path):
    (tmp_path / "not.pkl").write_bytes(b"\x80\x04junk")
    assert shown(lambda: read_plain_pickle(tmp_path / "not.pkl")).startswith("UnpicklingError: ")


def test_a_defect_in_a_sentence_that_is_made_up_is_a_defect(run_folder, shown, monkeypatch):
    folder = run_folder / "tools"  # one of our packages, in a checkout elsewhere
    folder.mkdir()
    (folder / "own.py").write_text("def f(x):\n    raise ValueError(f'x must be 1; got {x[0]}')\n")
    monkeypatch.setattr(errors, "ROOT", run_folder)
    monkeypatch.syspath_prepend(folder)
    own = importlib.import_module("own")
    assert shown(lambda: own.f([2])) == "x must be 1; got 2"
    assert shown(lambda: own.f([])).startswith("IndexError: list index out of range (")


def test_what_the_system_says_of_a_file_is_a_sentence(run_folder, shown):
    words = shown(lambda: Path("no.yaml").read_text())
    assert words == "[Errno 2] No such file or directory: 'no.yaml'"
    assert not list(run_folder.iterdir())


def test_a_process_that_was_killed_is_a_sentence(run_folder, shown):
    error = ProcessExitedException("process 1 terminated with signal SIGKILL", 1, 7, 9, "SIGKILL")
    assert shown(lambda: raised(error)) == "process 1 terminated with signal SIGKILL"


def test_a_sent_traceback_without_sources_is_of_a_defect(run_folder, shown):
    text = (
        "\n-- Process 1 terminated\nTraceback (most recent call last):\n"
        '  File "<string>", line 2, in f\n  File "/x/a.py", line 7, in g\n'
        "ValueError: two\nlines\n"
    )
    words = shown(lambda: raised(ProcessRaisedException(text, 1, 7)))
    assert words.startswith("ValueError: two (/x/a.py:7); the traceback is in ")


def test_without_a_run_the_traceback_is_kept_among_temporary_files(monkeypatch, shown, tmp_path):
    monkeypatch.setattr(errors, "_folder", [])
    monkeypatch.setattr(errors.tempfile, "tempdir", str(tmp_path))
    assert f"the traceback is in {tmp_path}" in shown(defect)
    keep_tracebacks_in(tmp_path / "is gone")
    assert f"the traceback is in {tmp_path}/error-" in shown(defect)
    monkeypatch.setattr(errors.tempfile, "tempdir", str(tmp_path / "is gone"))
    assert "cannot be written" in shown(defect)


def test_an_interruption_passes():
    with pytest.raises(KeyboardInterrupt):
        one_sentence_errors(lambda: raised(KeyboardInterrupt()))


@pytest.mark.parametrize(("function", "kind"), [(defect, IndexError), (no_file, OSError)])
def test_the_traceback_is_shown_when_asked_for(monkeypatch, function, kind):
    monkeypatch.setenv("REVIEWKD_DET_TRACEBACK", "1")
    with pytest.raises(kind):
        one_sentence_errors(function)


def test_without_an_error_nothing_is_said(capsys):
    called = []
    one_sentence_errors(lambda: called.append(1))
    assert called == [1]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("detectron2.config", "reviewkd-setup-detectron2"), ("accelerate", "[classification]")],
)
def test_an_absent_package_is_named_with_what_installs_it(shown, name, remedy):
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    words = shown(lambda: raised(error))
    assert words.startswith(f"{name.partition('.')[0]} must be installed; got none; ")
    assert remedy in words
