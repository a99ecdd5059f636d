"""A step whose losses are not finite ends the run with what is needed to find out why."""

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from torch import nn

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.data import register_coco_format
from reviewkd_det.d2.runs.from_yaml import build_trainer
from reviewkd_det.d2.runs.not_finite import _alone
from tests.d2 import scenes, tiny


def trainer(folder, distill=None, **solver):
    name = f"finite_{folder.name}"
    tree = scenes.run_tree(folder, name, MAX_ITER=6, CHECKPOINT_PERIOD=2, **solver)
    tiny.save_teacher(folder)
    if name not in MetadataCatalog.list():
        register_coco_format(*tree["DATASETS"]["COCO_FORMAT"][0])
    trainer = build_trainer(load_config(tiny.save_student(folder, distill=distill, **tree)))
    trainer.resume_or_load(resume=False)
    return trainer


def spoil_at(trainer, iteration, spoil):
    before = trainer.before_step

    def before_step():
        before()
        if trainer.iter == iteration:
            spoil(trainer.model)

    trainer.before_step = before_step


@torch.no_grad()
def break_a_weight(model):
    model.student.backbone.fpn_output3.bias[0] = float("nan")


@torch.no_grad()
def break_a_bias(model):
    """Where it spoils a loss and not the proposals."""
    model.student.roi_heads.box_predictor.bbox_pred.bias.fill_(float("nan"))


@torch.no_grad()
def break_the_distiller(model):
    for parameter in model.methods["ReviewKD"].parameters():
        parameter.fill_(1e30)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (break_a_weight, r"the student's largest activation is nan in p3"),
        (break_the_distiller, r"loss_reviewkd (inf|nan).* the student's largest activation is \d"),
    ],
)
def test_the_sentence_says_when_with_what_and_where(tmp_path, spoil, found):
    run = trainer(tmp_path)
    spoil_at(run, 3, spoil)
    with pytest.raises(FloatingPointError, match=found) as raised:
        run.train()
    sentence = str(raised.value)
    assert "in iteration 3 with " in sentence
    files = [x["file_name"] for x in run.data_loader.last_batch]
    assert len(files) == 2
    assert all(name in sentence for name in files)
    # A student whose proposals are not numbers fails before the teacher is asked.
    assert ("the teacher's largest activation is " in sentence) == (spoil is break_the_distiller)
    assert "\n" not in sentence


def test_nothing_is_saved_over_the_last_good_checkpoint(tmp_path):
    run = trainer(tmp_path)
    spoil_at(run, 3, break_a_weight)
    with pytest.raises(FloatingPointError, match="checkpoints are as they were"):
        run.train()
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_0000001.pth"
    assert [p.name for p in (tmp_path / "run").glob("*.pth")] == ["model_0000001.pth"]
    state = torch.load(tmp_path / "run" / "model_0000001.pth", weights_only=True)
    assert all(torch.isfinite(x).all() for x in state["model"].values())


def test_a_plain_student_has_no_teacher_to_tell_of(tmp_path):
    run = trainer(tmp_path, distill={"METHODS": []})
    spoil_at(run, 1, break_a_weight)
    with pytest.raises(FloatingPointError) as raised:
        run.train()
    assert "student's largest activation is nan in p3" in str(raised.value)
    assert "teacher" not in str(raised.value)


def test_the_process_whose_losses_they_are_tells_of_its_images(tmp_path, monkeypatch):
    run = trainer(tmp_path, distill={"METHODS": []})

    def spoil_in_the_last_of_two(model):
        break_a_bias(model)
        monkeypatch.setattr(comm, "get_world_size", lambda: 2)
        monkeypatch.setattr(comm, "get_rank", lambda: 1)
        # Detectron2 compares in the first process alone, after all have met.
        monkeypatch.setattr(comm, "gather", lambda _: pytest.fail("it waits for the others"))

    spoil_at(run, 1, spoil_in_the_last_of_two)
    with pytest.raises(FloatingPointError, match="in iteration 1, process 1 of 2, with ") as raised:
        run.train()
    assert all(x["file_name"] in str(raised.value) for x in run.data_loader.last_batch)


def test_shared_batch_statistics_wait_for_no_other_process():
    inputs = torch.randn(2, 3, 4, 5)
    layer, expected = nn.SyncBatchNorm(3), nn.BatchNorm2d(3)(inputs)
    with _alone(layer):
        assert torch.allclose(layer(inputs), expected)
    assert layer.training
    assert not layer.running_mean.any()
