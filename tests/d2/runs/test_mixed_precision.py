"""Automatic mixed precision: which precision is taken where, and runs in it."""

import json

import pytest
import torch
from detectron2.utils.env import seed_all_rng

from reviewkd_det.d2.runs import from_yaml, mixed_precision
from reviewkd_det.d2.runs.mixed_precision import settle_precision
from tests.d2.runs.test_trainer import flat, trainer_for

OPTIONS = [
    "SOLVER.AMP.ENABLED", "True",
    "MODEL.DISTILL.METHODS", "('ReviewKD', 'PKD', 'DKD', 'BoxRegression', 'RPNLogits')",
    "MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT", "auto",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "device", "chosen"),
    [
        ("auto", "cpu", "bfloat16"),
        ("bfloat16", "cpu", "bfloat16"),
        ("auto", "cuda", "float16"),
        ("bfloat16", "cuda:1", "bfloat16"),
        ("float16", "cuda", "float16"),
    ],
)
def test_a_device_has_its_precision(name, device, chosen):
    assert settle_precision(name, device, "KEY") == chosen


@pytest.mark.parametrize(("name", "device"), [("float16", "cpu"), ("half", "cuda"), ("", "cpu")])
def test_another_precision_is_refused_with_those_there_are(name, device):
    with pytest.raises(ValueError, match=rf"KEY must be one of \['auto', .*{device}; got '{name}'"):
        settle_precision(name, device, "KEY")


@pytest.mark.parametrize("has_units", [True, False])
def test_a_device_without_units_for_it_is_warned_of(monkeypatch, caplog, has_units):
    monkeypatch.setattr(mixed_precision, "computes_in_bfloat16", lambda device: has_units)
    mixed_precision.InBFloat16(torch.nn.Identity(), "cpu")
    told = "A step is in bfloat16, and device cpu has no units for it"
    assert (told in caplog.text) is not has_units


def run(cfg, *, resume=False):
    seed_all_rng(1)  # of the order of the images
    trainer = from_yaml.build_trainer(cfg)
    trainer.resume_or_load(resume=resume)
    kinds = []
    trainer.model.student.backbone.register_forward_hook(
        lambda module, inputs, levels: kinds.extend(level.dtype for level in levels.values())
    )
    trainer.train()
    return trainer, set(kinds)


@pytest.mark.parametrize("accumulated", ["1", "2"])
def test_a_run_in_bfloat16_goes_on_exactly_after_a_stop(tmp_path, accumulated):
    cfg = trainer_for(tmp_path, OPTIMIZER="AdamW", MAX_ITER=4, CHECKPOINT_PERIOD=2, IMS_PER_BATCH=4)
    cfg.merge_from_list([*OPTIONS, "SOLVER.ACCUMULATION_STEPS", accumulated])
    first, kinds = run(cfg)
    assert torch.bfloat16 in kinds
    assert all(p.dtype == torch.float32 for p in first.model.parameters())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["precision"] == "bfloat16"
    for name in ("model_0000003.pth", "model_final.pth"):
        (tmp_path / "run" / name).unlink()

    second, _ = run(cfg, resume=True)
    assert second.start_iter == 2
    after, expected = (
        dict(flat({"model": x.model.state_dict(), "methods": x.model.methods.state_dict()}))
        for x in (second, first)
    )
    torch.testing.assert_close(after, expected, rtol=0, atol=0)
