"""A state is loaded whole, or the one before it; states of earlier versions are read."""

import os
import shutil
import signal

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from classification.runs.states import States, files_of
from tests.classification.running import assert_same_end, save_as_folder, train


def build(folder, keep=2, size=30):
    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=True)
    model = nn.Linear(size, size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model, optimizer = accelerator.prepare(model, optimizer)
    return States(files_of(folder), accelerator, model, optimizer, keep), model


def save(folder, *positions, keep=2, with_method=States.save):
    states, model = build(folder, keep)
    for epoch, step in positions:
        with torch.no_grad():
            model.weight.fill_(epoch + step / 10)
        with_method(states, {"epoch": epoch, "step": step})
    return states.files.all()


@pytest.mark.parametrize("method", [States.save, save_as_folder], ids=["file", "folder"])
def test_the_last_state_is_loaded_with_its_progress(tmp_path, method):
    save(tmp_path, (1, 0), (1, 2), with_method=method)
    states, model = build(tmp_path)
    progress = states.load()
    assert (progress["epoch"], progress["step"], progress["processes"]) == (1, 2, 1)
    assert (model.weight == 1.2).all()


def test_without_a_state_nothing_is_loaded(tmp_path):
    assert build(tmp_path / "none")[0].load() is None


def test_all_random_states_are_restored(tmp_path):
    save(tmp_path, (1, 0))
    expected = torch.rand(3)
    states, _ = build(tmp_path)
    states.load()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_states_are_kept_whoever_wrote_them(tmp_path, keep):
    save(tmp_path, (1, 0), (1, 5), with_method=save_as_folder)
    paths = save(tmp_path, (2, 0), (2, 5), keep=keep)
    everything = ["epoch_00001_step_0000005", "epoch_00002.pth", "epoch_00002_step_0000005.pth"]
    assert [path.name for path in paths] == everything[-keep:]
    assert not list(tmp_path.glob("*.part"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2])  # the last of a text is the end of its line


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.unlink()])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.bin", "random_states_0.pkl", "progress.json", "SHA256SUMS"],
)
def test_a_damaged_folder_is_passed_over_with_a_warning(tmp_path, caplog, name, damage):
    _, last = save(tmp_path, (1, 0), (1, 2), with_method=save_as_folder)
    damage(last / name)
    states, model = build(tmp_path)
    assert states.load()["step"] == 0
    assert (model.weight == 1.0).all()
    assert "epoch_00001_step_0000002'" in caplog.text


def test_a_foreign_folder_is_passed_over(tmp_path, caplog):
    _, last = save(tmp_path, (1, 0), (1, 2), with_method=save_as_folder)
    (last / "notes.txt").write_text("mine")
    (tmp_path / "epoch_00009").mkdir()
    assert build(tmp_path)[0].load()["step"] == 0
    assert "epoch_00009' has no readable content" in caplog.text
    assert "holds notes.txt" in caplog.text


@pytest.mark.parametrize("method", [States.save, save_as_folder], ids=["file", "folder"])
def test_a_whole_state_that_does_not_fit_is_an_error(tmp_path, monkeypatch, method):
    save(tmp_path, (1, 0), (1, 2), with_method=method)
    with pytest.raises(ValueError, match=r"of the configured networks .*0002.*': .*size mismatch"):
        build(tmp_path, size=20)[0].load()
    states, _ = build(tmp_path)
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(ValueError, match=r"as many processes as saved '.*0002.*', 1; got 2"):
        states.load()


def test_a_run_of_an_earlier_version_goes_on_bit_for_bit(tmp_path, monkeypatch):
    options = ["MODEL.NAME", "torchvision/squeezenet1_1", "SOLVER.LR", 0.01]  # draws for dropout
    options += ["SOLVER.EPOCHS", 2, "SOLVER.CHECKPOINT_PERIOD", 2]
    train(tmp_path / "whole", *options)

    def save_and_stop(states, progress):
        save_as_folder(states, progress)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as context:
        context.setattr(States, "save", save_and_stop)
        assert train(tmp_path / "cut", *options) == 143
    names = sorted(path.name for path in (tmp_path / "cut" / "state").iterdir())
    assert names == ["epoch_00000_step_0000002", "epoch_00000_step_0000003"]
    assert train(tmp_path / "cut", *options, resume=True) == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


def test_a_run_that_has_lost_its_states_is_not_begun_anew(tmp_path):
    train(tmp_path, "SOLVER.EPOCHS", "1")
    shutil.rmtree(tmp_path / "state")
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(FileNotFoundError, match=r"must find a state .* got none in '.*state', bes"):
        train(tmp_path, "SOLVER.EPOCHS", "1", resume=True)
    assert (tmp_path / "metrics.jsonl").read_text() == before
