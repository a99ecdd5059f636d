import copy
import logging

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from tests.d2 import tiny


def student(folder):
    tiny.save_teacher(folder)
    return build_model(load_config(tiny.save_student(folder)))


def of_a_run(model, folder, **own):
    """A checkpointer with what a run's has, and a stand-in for the trainer's state."""
    trainer = torch.optim.SGD(model.parameters(), lr=0.1)
    return StudentCheckpointer(model, str(folder), key="MODEL.WEIGHTS", trainer=trainer, **own)


def load_initial(model, state, folder):
    torch.save({"model": state}, folder / "initial.pth")
    checkpointer = StudentCheckpointer(model, key="MODEL.WEIGHTS")
    checkpointer.resume_or_load(str(folder / "initial.pth"), resume=False)


def test_initial_weights_may_cover_a_part_and_say_how_much(tmp_path, caplog):
    model = student(tmp_path)
    part = {k: v + 1 for k, v in model.state_dict().items() if "bottom_up" in k}
    with caplog.at_level(logging.INFO, logger="fvcore"):
        load_initial(model, part, tmp_path)
    assert "backbone.fpn_lateral2 0 of 2" in caplog.text
    count = sum("num_batches_tracked" not in name for name in part)
    assert f"backbone.bottom_up {count} of {count}" in caplog.text
    assert "only in part" not in caplog.text
    for name, value in part.items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_part_that_is_covered_in_part_is_a_warning(tmp_path, caplog):
    model = student(tmp_path)
    part = {k: v for k, v in model.state_dict().items() if "bottom_up" in k}
    del part["backbone.bottom_up.res3.0.conv1.weight"]
    with caplog.at_level(logging.WARNING, logger="fvcore"):
        load_initial(model, part, tmp_path)
    assert "only in part: backbone.bottom_up: backbone.bottom_up.res3.0.conv1.weight" in caplog.text


def test_initial_weights_of_something_else_are_refused(tmp_path):
    model = student(tmp_path)
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS must .* none of them, .* foo.weight"):
        load_initial(model, {"foo.weight": torch.zeros(3)}, tmp_path)


@pytest.mark.parametrize("saved", ["plain", "distilled"])
def test_a_run_of_another_kind_cannot_be_resumed(tmp_path, saved):
    model = student(tmp_path)
    kinds = {"plain": {}, "distilled": {"methods": model.methods}}
    wanted = "plain" if saved == "distilled" else "distilled"
    of_a_run(model, tmp_path, **kinds[saved]).save("model_1", iteration=1)
    resumed = of_a_run(model, tmp_path, **kinds[wanted])
    words = rf"METHODS must be .* got a {wanted} run for '.*model_1.pth', which is from a {saved}"
    with pytest.raises(ValueError, match=words):
        resumed.resume_or_load("", resume=True)


def test_no_checkpoint_is_refused_where_one_is_needed_and_taken_where_not(tmp_path):
    model = student(tmp_path)
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS must name a checkpoint; got ''"):
        VerifiedCheckpointer(model, key="MODEL.WEIGHTS").load("")
    before = copy.deepcopy(model.state_dict())
    StudentCheckpointer(model, key="MODEL.WEIGHTS").resume_or_load("", resume=False)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_other_methods_than_the_runs_cannot_be_resumed(tmp_path):
    model = student(tmp_path)
    of_a_run(model, tmp_path, methods=model.methods).save("model_1", iteration=1)
    opts = ["MODEL.DISTILL.REVIEWKD.TEACHER_SCALE", "rms"]
    other = build_model(load_config(tmp_path / "student.yaml", opts))
    resumed = of_a_run(other, tmp_path, methods=other.methods)
    with pytest.raises(ValueError, match=r"of the run to resume; .* ReviewKD.teacher_scale.mean"):
        resumed.resume_or_load("", resume=True)


def test_weights_of_another_shape_are_left_out_at_the_start_and_refused_on_resuming(
    tmp_path, caplog
):
    model = student(tmp_path)
    state = dict(model.state_dict())
    name = "roi_heads.box_predictor.cls_score.weight"
    state[name] = torch.zeros(9, 16)
    with caplog.at_level(logging.WARNING, logger="fvcore"):
        load_initial(model, state, tmp_path)
    assert f"only in part: roi_heads.box_predictor: {name}" in caplog.text
    strict = VerifiedCheckpointer(model, key="MODEL.WEIGHTS")
    with pytest.raises(ValueError, match=rf"of the model's shapes; got {name} \(9, 16\) for"):
        strict.load(str(tmp_path / "initial.pth"))


def test_the_distillers_state_is_beside_the_students_and_comes_back(tmp_path):
    model = student(tmp_path)
    of_a_run(model, tmp_path, methods=model.methods).save("model_1", iteration=1)
    saved = torch.load(tmp_path / "model_1.pth", weights_only=True)
    assert set(saved) == {"model", "methods", "trainer", "iteration"}
    assert set(saved["model"]) == set(model.student.state_dict())
    twin = build_model(load_config(tmp_path / "student.yaml"))
    of_a_run(twin, tmp_path, methods=twin.methods).resume_or_load("", resume=True)
    found = twin.methods.state_dict()
    for name, value in model.methods.state_dict().items():
        is_tensor = isinstance(value, torch.Tensor)
        assert torch.equal(found[name], value) if is_tensor else found[name] == value, name


def test_a_file_whose_model_is_no_state_dict_is_refused(tmp_path):
    torch.save({"model": [1, 2]}, tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"must be a checkpoint that can be read; got '.*list.pth"):
        VerifiedCheckpointer(nn.Linear(1, 1), key="MODEL.WEIGHTS").load(str(tmp_path / "list.pth"))


def test_an_address_out_of_reach_is_refused():
    checkpointer = VerifiedCheckpointer(nn.Linear(1, 1), key="MODEL.WEIGHTS")
    with pytest.raises(FileNotFoundError, match=r"MODEL.WEIGHTS .*got 'torchvision://nothing'"):
        checkpointer.load("torchvision://nothing")
