"""A Python config of a run that goes on, compared with the one that it began with."""

import pytest
import torch
from detectron2.config import LazyCall, LazyConfig
from omegaconf import OmegaConf

from reviewkd_det.d2.runs.resuming import settle_python_resume


def config(folder, lr=0.1, max_iter=4, teacher="t.yaml", names="a", **train):
    parts = {
        "model": {"teacher": {"config_file": teacher, "precision": "float32"}},
        "optimizer": LazyCall(torch.optim.SGD)(lr=lr, momentum=0.9),
        "dataloader": {"train": {"dataset": {"names": names}}},
        "train": {"output_dir": str(folder), "max_iter": max_iter, **train},
    }
    return OmegaConf.create(parts, flags={"allow_objects": True})


@pytest.fixture
def folder(tmp_path):
    LazyConfig.save(config(tmp_path), str(tmp_path / "config.yaml"))
    return tmp_path


def test_without_a_checkpoint_there_is_no_run_to_compare_with(folder):
    assert settle_python_resume(config(folder, names="b")) is None


def test_the_optimiser_stays_the_rest_holds_and_the_teacher_must_stay(folder):
    (folder / "model_0000001.pth").touch()
    assert settle_python_resume(config(folder)).warning == ""
    changed = config(folder, lr=1, max_iter=9)
    settled = settle_python_resume(changed)
    assert "from now on train.max_iter 9 (was 4)" in settled.warning
    assert "as in the checkpoint optimizer.lr 0.1 (not 1)" in settled.warning
    assert (changed.optimizer.lr, changed.train.max_iter) == (0.1, 9)
    for other in ({"teacher": "u.yaml"}, {"names": "b"}):
        with pytest.raises(ValueError, match=r"must be that of the run to resume, .*; set train"):
            settle_python_resume(config(folder, **other))
        assert settle_python_resume(config(folder, resume_with_changes=True, **other)).warning
