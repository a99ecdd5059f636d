"""A state is whole or recognised as not, and the one before it is used."""

import json
import os
import re
import resource
import subprocess

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from classification.runs.states import States


def build(folder, keep=2, size=300):
    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=True)
    model = nn.Linear(size, size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model, optimizer = accelerator.prepare(model, optimizer)
    return States(folder, accelerator, keep), model


def save(states, model, epoch, step=0):
    with torch.no_grad():
        model.weight.fill_(epoch + step / 10)
    states.save({"epoch": epoch, "step": step})


def names(states):
    return [path.name for path in states.all()]


@pytest.fixture
def saved(tmp_path):
    states, model = build(tmp_path / "state")
    save(states, model, 1)
    save(states, model, 1, 2)
    return states.all()


def test_the_last_state_is_loaded_with_its_progress(saved, tmp_path):
    states, model = build(tmp_path / "state")
    progress = states.load()
    assert (progress["epoch"], progress["step"], progress["processes"]) == (1, 2, 1)
    assert (model.weight == 1.2).all()
    assert build(tmp_path / "none")[0].load() is None


def test_sha256sum_reads_the_digests(saved):
    done = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=saved[-1], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.count(b": OK") == 4


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2])  # the last of a text is the end of its line


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, empty, flip, remove])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.bin", "random_states_0.pkl", "progress.json", "SHA256SUMS"],
)
def test_a_damaged_state_is_passed_over_with_a_warning(saved, tmp_path, caplog, name, damage):
    damage(saved[-1] / name)
    states, model = build(tmp_path / "state")
    assert states.load()["step"] == 0
    assert (model.weight == 1.0).all()
    (record,) = caplog.records
    assert re.search(
        r"'.*epoch_00001_step_0000002' (lacks|holds|has) .*; going on from '.*epoch_00001'",
        record.getMessage(),
    )
    assert states.last == f"the last good state is '{saved[0]}'"
    # The next save deletes it, wherever it comes in the order, and not the good one before it.
    save(states, model, 1, 1)
    assert names(states) == ["epoch_00001", "epoch_00001_step_0000001"]


def test_a_foreign_state_is_passed_over(saved, tmp_path, caplog):
    (saved[-1] / "notes.txt").write_text("mine")
    foreign = tmp_path / "state" / "epoch_00009"
    foreign.mkdir()
    torch.save({}, foreign / "optimizer.bin")
    assert build(tmp_path / "state")[0].load()["step"] == 0
    first, second = (record.getMessage() for record in caplog.records)
    assert "epoch_00009' has no readable content" in first
    assert "holds notes.txt, which SHA256SUMS does not name" in second


def test_without_a_whole_state_nothing_is_loaded(saved, tmp_path):
    for path in saved:
        flip(path / "model.safetensors")
    states, model = build(tmp_path / "state")
    before = model.weight.clone()
    message = "must be whole to go on from; got .*step_0000002', which holds a truncated or changed"
    with pytest.raises(ValueError, match=f"{message} model.safetensors; .*; start anew with"):
        states.load()
    assert torch.equal(model.weight, before)


def test_a_whole_state_of_another_network_is_an_error(saved, tmp_path):
    states, _ = build(tmp_path / "state", size=200)
    message = r"of the configured networks and precision; got '.*step_0000002': .*size mismatch"
    with pytest.raises(ValueError, match=message):
        states.load()


def test_a_state_of_more_processes_is_an_error(saved, tmp_path, monkeypatch):
    states, _ = build(tmp_path / "state")
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(ValueError, match=r"as many processes as saved '.*step_0000002', 1; got 2"):
        states.load()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_states_are_kept(tmp_path, keep):
    states, model = build(tmp_path / "state", keep)
    for epoch in range(3):
        save(states, model, epoch, 5)
        save(states, model, epoch + 1)
    everything = ["epoch_00002", "epoch_00002_step_0000005", "epoch_00003"]
    assert names(states) == everything[-keep:]


def test_what_a_killed_process_left_is_deleted(saved, tmp_path):
    part = tmp_path / "state" / "epoch_00002.part"
    for action in (lambda s, m: s.load(), lambda s, m: save(s, m, 3)):
        part.mkdir()
        states, model = build(tmp_path / "state")
        action(states, model)
        assert not part.exists()


def test_a_full_disk_is_a_sentence_and_leaves_the_good_states(saved, tmp_path):
    states, model = build(tmp_path / "state")
    files = {path: path.read_bytes() for state in saved for path in state.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        message = (
            r"'.*epoch_00002.part' must be written as a whole; got .* on a disk with [\d,.]+ MB "
            r"free; the last good state is '.*epoch_00001_step_0000002'"
        )
        with pytest.raises(OSError, match=message):
            save(states, model, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == files
    save(states, model, 2)
    assert names(states) == ["epoch_00001_step_0000002", "epoch_00002"]


def test_the_files_are_on_the_disk_before_the_state_takes_its_name(tmp_path, monkeypatch):
    synced = []
    fsync, rename = os.fsync, type(tmp_path).rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    monkeypatch.setattr(
        type(tmp_path), "rename", lambda s, t: (synced.append("rename"), rename(s, t))[1]
    )
    states, model = build(tmp_path)
    save(states, model, 1)
    part = tmp_path / "epoch_00001.part"
    files = {str(part / file.name) for file in (tmp_path / "epoch_00001").iterdir()}
    assert set(synced[:5]) == files
    assert synced[5:] == [str(part), "rename", str(tmp_path)]
    assert json.loads((tmp_path / "epoch_00001" / "progress.json").read_text())["epoch"] == 1
