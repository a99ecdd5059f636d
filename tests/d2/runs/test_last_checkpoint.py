"""One answer to which checkpoint is a run's last, for all who use it; the best is not it."""

import argparse
import errno

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.exporting.student import load_student
from reviewkd_det.d2.runs.checkpointer import BEST, StudentCheckpointer, last_checkpoint
from reviewkd_det.d2.runs.yaml_config import read_config
from reviewkd_det.pictures.runs import load_run
from tests.d2.runs import running


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


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("last")
    return running.prepare(folder, "last", distill={"METHODS": []})


@pytest.fixture
def run(config, tmp_path):
    """A run's folder with checkpoints of two iterations, whose weights are their numbers."""
    cfg = load_config(config)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    model = build_model(cfg)
    for iteration in (9, 19):
        for value in model.state_dict().values():
            value.fill_(iteration)
        saving = StudentCheckpointer(model, str(tmp_path), key="", trainer=State())
        saving.save(f"model_{iteration:07d}", iteration=iteration)
    return tmp_path


def drop_the_tag(folder):
    (folder / "last_checkpoint").unlink()


def tag_what_is_gone(folder):
    (folder / "last_checkpoint").write_text("model_0000029.pth")


def tag_an_older_one(folder):
    (folder / "last_checkpoint").write_text("model_0000009.pth")


def damage_the_newest(folder):
    save(folder, 29)
    path = folder / "model_0000029.pth"
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    "change", [drop_the_tag, tag_what_is_gone, tag_an_older_one, damage_the_newest]
)
def test_all_take_the_same_one(config, run, change):
    change(run)
    expected = str(run / "model_0000019.pth")
    assert last_checkpoint(run) == expected
    resumed = StudentCheckpointer(build_model(load_config(config)), str(run), key="")
    assert resumed.resume_or_load("", resume=True)["iteration"] == 19

    opts = ["OUTPUT_DIR", str(run)]
    args = argparse.Namespace(
        config_file=config, opts=opts, eval_only=True, resume=True, overwrite=False
    )
    assert expected == read_config(args).MODEL.WEIGHTS
    args.opts = [*opts, "MODEL.WEIGHTS_ENTRY", "model"]
    assert read_config(args).MODEL.WEIGHTS_ENTRY == "model"
    assert expected == load_student(str(run / "config.yaml"), opts).checkpoint
    drawn = load_run("run", run, *[]).model.state_dict()
    assert all((value == 19).all() for value in drawn.values())


def test_a_run_that_was_made_longer_goes_on_from_its_newest(tmp_path):
    save(tmp_path, 9)
    checkpointer(tmp_path).save("model_final", iteration=9)
    assert last_checkpoint(tmp_path).endswith("model_final.pth")
    save(tmp_path, 19)
    assert last_checkpoint(tmp_path).endswith("model_0000019.pth")
    assert resume(tmp_path) == 19


def test_the_best_is_not_what_a_run_goes_on_from(tmp_path):
    save(tmp_path, 9)
    checkpointer(tmp_path).save(BEST, iteration=4)
    assert resume(tmp_path) == 9
    (tmp_path / "model_0000009.pth").unlink()
    assert not checkpointer(tmp_path).has_checkpoint()


def test_where_none_is_whole_the_run_is_not_begun_anew(tmp_path):
    save(tmp_path, 9)
    (tmp_path / "model_0000009.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must be whole; .*model_0000009.pth"):
        resume(tmp_path)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    save(tmp_path, 9)

    def full(content, file):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(torch, "save", full)
        with pytest.raises(OSError, match=r"model_0000019.pth' .*left on device.*model_0000009"):
            save(tmp_path, 19)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000009.pth"]
    assert resume(tmp_path) == 9
