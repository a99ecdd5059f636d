"""What a config compares, and what each setting of a method does."""

import logging
import re

import pytest
import torch

from tests.classification.distilling import TARGET, build, config, losses


@pytest.mark.parametrize(
    ("student", "options", "line"),
    [
        (
            "resnet8", [],
            "layer1.0.add 16x16x16 <- layer1.1.add 16x16x16, "
            "layer2.0.add 32x8x8 <- layer2.1.add 32x8x8, "
            "layer3.0.add 64x4x4 <- layer3.1.add 64x4x4, flatten 64x1x1 <- flatten 64x1x1",
        ),
        (
            "resnet8",
            ["DISTILL.STUDENT_ACTIVATION", "after", "DISTILL.POOLED", False],
            "layer1.0.relu2 16x16x16 <- layer1.1.add 16x16x16, "
            "layer2.0.relu2 32x8x8 <- layer2.1.add 32x8x8, "
            "layer3.0.relu2 64x4x4 <- layer3.1.add 64x4x4",
        ),
        (
            "resnet8",
            ["DISTILL.STUDENT_TAPS", ("layer2", "pool"),
             "DISTILL.TEACHER_TAPS", ("layer3.1.add", "flatten")],
            "layer2 32x8x8 <- layer3.1.add 64x4x4, pool 64x1x1 <- flatten 64x1x1",
        ),
        (
            "torchvision/resnet18",
            ["INPUT.SIZE", 64, "DISTILL.TEACHER_ACTIVATION", "after"],
            "layer2.1.add 128x8x8 <- layer1.1.relu2 16x64x64, "
            "layer3.1.add 256x4x4 <- layer2.1.relu2 32x32x32, "
            "layer4.1.add 512x2x2 <- layer3.1.relu2 64x16x16, flatten 512x1x1 <- flatten 64x1x1",
        ),
        (  # which has no pooled vector
            "torchvision/squeezenet1_1", ["INPUT.SIZE", 64],
            "features.4.cat 128x15x15 <- layer1.1.add 16x64x64, "
            "features.7.cat 256x7x7 <- layer2.1.add 32x32x32, "
            "classifier.1 5x3x3 <- layer3.1.add 64x16x16",
        ),
    ],
)  # fmt: skip
def test_the_compared_levels_are_said_and_learned_from(tmp_path, student, options, line, caplog):
    cfg = config(tmp_path, *options, student=student)
    with caplog.at_level(logging.INFO):
        model, _ = build(cfg)
    assert caplog.messages == [f"Levels compared: {line}"]
    images = torch.zeros(3, 3, cfg.INPUT.SIZE, 2 * cfg.INPUT.SIZE, dtype=torch.uint8)
    found = model.train()(images, TARGET, 1)
    assert list(found) == ["loss_ce", "loss_reviewkd"]
    assert all(loss.isfinite() for loss in found.values())


BOTH = "DISTILL.STUDENT_TAPS and TEACHER_TAPS must be"


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (("layer3",), (), f"{BOTH} given together; got ('layer3',) and ()"),
        ((), ("layer3",), f"{BOTH} given together; got () and ('layer3',)"),
        (
            ("layer2", "layer3"), ("layer3",),
            f"{BOTH} as many; got ('layer2', 'layer3') and ('layer3',)",
        ),
        (
            ("layer3.0.ad",), ("layer3",),
            "DISTILL.STUDENT_TAPS must name nodes of ResNet; got 'layer3.0.ad'; "
            "the nearest are layer3.0.add, ",
        ),
        (
            ("layer3",), ("layer3.2.add",),
            "DISTILL.TEACHER_TAPS must name nodes of ResNet; got 'layer3.2.add'; "
            "the nearest are layer3.",
        ),
    ],
)  # fmt: skip
def test_taps_that_do_not_fit_are_refused(tmp_path, student, teacher, message):
    keys = "DISTILL.STUDENT_TAPS", student, "DISTILL.TEACHER_TAPS", teacher
    with pytest.raises(ValueError, match=re.escape(message)):
        build(config(tmp_path, *keys))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CROSS_ENTROPY_WEIGHT", 0.5), ("METHODS", ("KD",)),
        ("REVIEWKD.LOSS_WEIGHT", 2.0), ("REVIEWKD.WARMUP_EPOCHS", 20.0),
        ("REVIEWKD.MID_CHANNELS", 9), ("STUDENT_ACTIVATION", "after"),
        ("TEACHER_ACTIVATION", "after"), ("POOLED", False),
        ("KD.LOSS_WEIGHT", 2.0), ("KD.WARMUP_EPOCHS", 20.0), ("KD.TEMPERATURE", 2.0),
        ("DKD.LOSS_WEIGHT", 2.0), ("DKD.WARMUP_EPOCHS", 20.0), ("DKD.TEMPERATURE", 2.0),
        ("DKD.ALPHA", 2.0), ("DKD.BETA", 2.0),
    ],
)  # fmt: skip
def test_every_setting_of_a_method_changes_that_loss_alone(tmp_path, key, value):
    methods = ("ReviewKD", "KD", "DKD")
    plain = losses(config(tmp_path, methods=methods))
    found = losses(config(tmp_path, f"DISTILL.{key}", value, methods=methods))
    if key == "METHODS":
        assert found == {name: plain[name] for name in ("loss_ce", "loss_kd")}
        return
    changed = {name for name in plain if found[name] != plain[name]}
    section = key.partition(".")[0] if "." in key else "REVIEWKD"  # or the levels it compares
    expected = "loss_ce" if key == "CROSS_ENTROPY_WEIGHT" else f"loss_{section.lower()}"
    assert changed == {expected}
    if "WEIGHT" in key:
        (name,) = changed
        assert found[name] == pytest.approx(value * plain[name])
    if "WARMUP" in key:
        (name,) = changed
        assert found[name] == pytest.approx(plain[name] / 20)
