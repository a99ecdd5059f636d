"""A checkpoint that was not written whole is seen and the one before it is used."""

import errno
import logging
import random

import numpy as np
import pytest
import torch
from torch import nn

from reviewkd_det.common.runs.random_state import random_state, restore_random_state
from reviewkd_det.d2.runs.checkpointer import BEST, StudentCheckpointer


class State:
    """Something that is saved beside the model."""

    value = 0

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def checkpointer(folder):
    return StudentCheckpointer(nn.Linear(2, 3), str(folder), key="MODEL.WEIGHTS", trainer=State())


def save(folder, *iterations):
    for iteration in iterations:
        saving = checkpointer(folder)
        saving.checkpointables["trainer"].value = iteration
        saving.save(f"model_{iteration:07d}", iteration=iteration)


def resume(folder):
    """The iteration that is gone on from, which the model's companion must be of as well."""
    loading = checkpointer(folder)
    iteration = loading.resume_or_load("", resume=True)["iteration"]
    assert loading.checkpointables["trainer"].value == iteration
    return iteration


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])


def flip(path):
    """Turn a bit of a weight, which PyTorch itself would load."""
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["model"]["weight"]
    content[content.index(weight.numpy().tobytes()) + 2] ^= 4
    path.write_bytes(bytes(content))
    torch.load(path, weights_only=True)


def put_another_in_its_place(path):
    torch.save({"model": nn.Linear(2, 3).state_dict()}, path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "File is not a zip file"),
        (flip, "is damaged"),
        (put_another_in_its_place, "is not of a run: it has no iteration, trainer"),
        (lambda path: path.write_bytes(b""), "File is not a zip file"),
    ],
    ids=["truncated", "flipped", "foreign", "empty"],
)
def test_the_one_before_is_used_and_both_are_named(tmp_path, caplog, damage, reason):
    save(tmp_path, 9, 19, 29)
    damage(tmp_path / "model_0000029.pth")
    with caplog.at_level(logging.WARNING):
        assert resume(tmp_path) == 19
    warning = next(text for text in caplog.messages if text.startswith("Going on"))
    assert "model_0000019.pth' instead of" in warning
    assert "model_0000029.pth'" in warning
    assert reason in warning


def test_of_several_that_are_damaged_each_is_named(tmp_path, caplog):
    save(tmp_path, 9, 19, 29)
    for iteration in (19, 29):
        cut(tmp_path / f"model_{iteration:07d}.pth")
    assert resume(tmp_path) == 9
    assert len([text for text in caplog.messages if text.startswith("Going on")]) == 2


def test_where_none_is_whole_the_run_is_not_begun_anew(tmp_path):
    save(tmp_path, 9)
    cut(tmp_path / "model_0000009.pth")
    with pytest.raises(ValueError, match=r"must be whole; got '.*model_0000009.pth': File is not"):
        resume(tmp_path)


def test_the_tagged_one_goes_before_newer_ones(tmp_path):
    save(tmp_path, 9, 19)
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    assert resume(tmp_path) == 9


def test_without_a_tag_the_newest_is_used(tmp_path):
    save(tmp_path, 9, 19)
    (tmp_path / "last_checkpoint").unlink()
    assert resume(tmp_path) == 19


def test_a_tag_that_leads_nowhere_is_passed_over(tmp_path):
    save(tmp_path, 9)
    (tmp_path / "last_checkpoint").write_text("model_0000019.pth")
    assert resume(tmp_path) == 9


def test_the_best_is_not_what_a_run_goes_on_from(tmp_path):
    save(tmp_path, 9)
    checkpointer(tmp_path).save(BEST, iteration=4)
    assert resume(tmp_path) == 9
    (tmp_path / "model_0000009.pth").unlink()
    assert not checkpointer(tmp_path).has_checkpoint()


def test_a_full_disk_leaves_the_last_good_one(tmp_path, monkeypatch):
    save(tmp_path, 9)

    def full(content, file):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        OSError,
        match=r"must be written; got '.*model_0000019.pth': .*No space left on device; the last "
        r"good one is '.*model_0000009.pth'",
    ):
        save(tmp_path, 19)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000009.pth"]
    assert resume(tmp_path) == 9


def test_all_random_states_are_restored(tmp_path):
    torch.save([random_state()], tmp_path / "states.pth")
    expected = random.random(), np.random.rand(), torch.rand(())
    restore_random_state(torch.load(tmp_path / "states.pth", weights_only=True))
    assert (random.random(), np.random.rand(), torch.rand(())) == expected


def test_a_process_more_than_were_saved_keeps_its_own_random_state(monkeypatch):
    states = [random_state()]
    torch.rand(3)
    before = torch.get_rng_state()
    monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda: 1)
    restore_random_state(states)
    assert torch.equal(torch.get_rng_state(), before)
