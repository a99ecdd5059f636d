"""A run from a YAML config: what learns, with which optimiser, and what is restored."""

import json

import pytest
import torch
from detectron2.modeling import build_model

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.data import register_coco_format
from reviewkd_det.d2.runs import from_yaml, solver
from reviewkd_det.d2.runs.evaluation import without_nan
from tests.d2 import scenes, tiny


def trainer_for(folder, **solver):
    name = f"scenes_{folder.name}"
    tree = scenes.run_tree(folder, name, **solver)
    tiny.save_teacher(folder)
    register_coco_format(*tree["DATASETS"]["COCO_FORMAT"][0])
    return load_config(tiny.save_student(folder, **tree))


def flat(state, prefix=""):
    for key, value in state.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_resuming_restores_everything_that_was_saved(tmp_path, optimizer):
    cfg = trainer_for(tmp_path, OPTIMIZER=optimizer, MAX_ITER=4, CHECKPOINT_PERIOD=2)
    first = from_yaml.build_trainer(cfg)
    first.resume_or_load(resume=False)
    first.train()
    saved = torch.load(tmp_path / "run" / "model_0000001.pth", weights_only=True)
    for name in ("model_0000003.pth", "model_final.pth"):
        (tmp_path / "run" / name).unlink()

    second = from_yaml.build_trainer(cfg)
    second.resume_or_load(resume=True)
    assert second.start_iter == 2
    assert second.scheduler.last_epoch == 2
    assert second.train_seconds == saved["trainer"]["train_seconds"] > 0
    parts = {
        "model": second.model.state_dict(),
        "methods": second.model.methods.state_dict(),
        "optimizer": second.optimizer.state_dict()["state"],
    }
    expected = {
        "model": saved["model"],
        "methods": saved["methods"],
        "optimizer": saved["trainer"]["_trainer"]["optimizer"]["state"],
    }
    assert expected["optimizer"]
    for (name, value), (_, before) in zip(flat(parts), flat(expected), strict=True):
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(before)), name
    second.train()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["train_seconds"] > saved["trainer"]["train_seconds"]


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_everything_that_learns_is_optimised_and_the_teacher_is_not(tmp_path, optimizer):
    cfg = trainer_for(tmp_path, OPTIMIZER=optimizer, WEIGHT_DECAY=0.02)
    model = build_model(cfg)
    groups = solver.build_optimizer(cfg, model).param_groups
    optimised = {id(p) for group in groups for p in group["params"]}
    assert optimised == {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for p in model.methods.parameters()} <= optimised
    assert not {id(p) for p in model.teacher.module.parameters()} & optimised
    assert {group["weight_decay"] for group in groups} == {0.0, 0.02}


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_the_fused_optimiser_is_not_used_where_gradients_are_scaled(tmp_path, precision):
    cfg = trainer_for(tmp_path, OPTIMIZER="AdamW")
    if precision != "float32":
        amp = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", precision]
        cfg.merge_from_list([*amp, "MODEL.DEVICE", "cuda"])
    optimizer = solver.build_optimizer(cfg, torch.nn.Linear(2, 2))
    assert optimizer.defaults["fused"] is (precision != "float16")


def test_a_learning_rate_of_0_is_refused_where_it_would_be_divided_by(tmp_path):
    cfg = trainer_for(tmp_path, BASE_LR=0.0, LR_SCHEDULER_NAME="WarmupCosineLR")
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.0)
    with pytest.raises(ValueError, match=r"BASE_LR must not be 0 with .* WarmupCosineLR"):
        solver.build_lr_scheduler(cfg, optimizer)
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    assert solver.build_lr_scheduler(cfg, optimizer).get_last_lr() == [0.0]


def test_what_could_not_be_measured_is_null():
    results = {"bbox": {"AP": 3.5, "APl": float("nan")}}
    assert without_nan(results) == {"bbox": {"AP": 3.5, "APl": None}}
    assert without_nan(None) is None


def test_what_is_inherited_is_not_replaced_by_initial_weights(tmp_path):
    cfg = trainer_for(tmp_path, CHECKPOINT_PERIOD=1)
    part = "proposal_generator"
    cfg.MODEL.DISTILL.INHERIT = (part,)
    cfg.MODEL.FPN.OUT_CHANNELS = 24
    cfg.MODEL.WEIGHTS = str(tmp_path / "initial.pth")
    trainer = from_yaml.build_trainer(cfg)
    initial = {k: torch.zeros_like(v) for k, v in trainer.model.state_dict().items()}
    torch.save({"model": initial}, tmp_path / "initial.pth")
    trainer.resume_or_load(resume=False)
    teacher = torch.load(tmp_path / "teacher.pth", weights_only=True)["model"]
    for name, value in trainer.model.state_dict().items():
        expected = teacher[name] if name.startswith(part) else initial[name]
        assert torch.equal(value, expected), name

    trainer.checkpointer.save("model_0000000", iteration=0)
    checkpoint = torch.load(tmp_path / "run" / "model_0000000.pth", weights_only=True)
    name = f"{part}.rpn_head.conv.weight"
    checkpoint["model"][name] += 1
    torch.save(checkpoint, tmp_path / "run" / "model_0000000.pth")
    trainer.resume_or_load(resume=True)
    assert torch.equal(trainer.model.state_dict()[name], checkpoint["model"][name])


def test_initial_weights_that_do_not_go_with_the_config_are_said(tmp_path, caplog):
    cfg = trainer_for(tmp_path)
    cfg.MODEL.DISTILL.METHODS = ()
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    trainer = from_yaml.build_trainer(cfg)
    caplog.set_level("WARNING")
    trainer.resume_or_load(resume=False)
    (said,) = (x for x in caplog.messages if "never trained" in x)
    assert said.startswith("MODEL.WEIGHTS '' lacks what is never trained")
    assert said.endswith("MODEL.BACKBONE.FREEZE_AT is 2, MODEL.RESNETS.NORM is BN")
    names = {"conv1.weight": "stem.conv1.weight", "bn1.weight": "stem.conv1.norm.weight",
             "layer1.0.conv1.weight": "res2.0.conv1.weight"}  # fmt: skip
    own = trainer.model.state_dict()
    content = {name: own[f"backbone.bottom_up.{ours}"] for name, ours in names.items()}
    cfg.MODEL.WEIGHTS = str(tmp_path / "resnet.pth")
    torch.save(content, cfg.MODEL.WEIGHTS)
    caplog.clear()
    from_yaml.build_trainer(cfg).resume_or_load(resume=False)
    (said,) = (x for x in caplog.messages if "were trained with" in x)
    assert "resnet.pth' holds weights of torchvision: INPUT.FORMAT is BGR" in said
    assert "MODEL.PIXEL_STD is [1.0, 1.0, 1.0]" in said
    assert "MODEL.RESNETS.STRIDE_IN_1X1 is True" in said
