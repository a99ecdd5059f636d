"""SimKD: a student that is deployed with the teacher's classifier."""

import argparse
import json
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from classification.models import create_model
from classification.models.reused import ReusedClassifier
from classification.runs.start import evaluate_main
from tests.classification.distilling import IMAGES, TARGET, build, config
from tests.classification.running import assert_same_end, here, sends, train


@pytest.fixture(autouse=True)
def _clean_log():
    yield
    logging.getLogger("classification").handlers.clear()


def test_the_classifier_is_the_teachers_and_nothing_of_it_is_trained(tmp_path):
    model, student = build(config(tmp_path, methods=("SimKD",)))
    teacher = torch.load(tmp_path / "teacher.pth", weights_only=True)
    teacher = teacher.get("model", teacher)
    for name in ("weight", "bias"):
        mine = getattr(student.classifier, name)
        (theirs,) = [x for key, x in teacher.items() if key.endswith(f"fc.{name}")]
        assert torch.equal(mine, theirs)
        assert not mine.requires_grad
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        (last,) = student.eval().trunk(images)
        pooled = student.project(last).mean((2, 3))
        expected = F.linear(pooled, student.classifier.weight, student.classifier.bias)
        torch.testing.assert_close(student(images), expected)
    losses = model.train()(IMAGES[..., :16], TARGET, 1)
    assert losses["loss_ce"] == 0
    losses["loss_simkd"].backward()
    trained = [name for name, x in student.named_parameters() if x.grad is not None]
    everything = [name for name, _ in student.named_parameters()]
    assert set(everything) - set(trained) == {"classifier.weight", "classifier.bias"}


def test_the_loss_is_that_of_the_teachers_last_map(tmp_path):
    model, student = build(config(tmp_path, methods=("SimKD",)))
    model.train()
    images = IMAGES[..., :16]
    inputs = model.preprocess(images)
    teacher = create_model("resnet14", num_classes=5)
    teacher.load_state_dict(torch.load(tmp_path / "teacher.pth", weights_only=True))
    seen = []
    teacher.layer3.register_forward_hook(lambda m, args, out: seen.append(out))
    with torch.no_grad():
        teacher.eval()(inputs)
        (last,) = student.trunk(inputs)
        expected = (student.project(last) - seen[0]).square().mean()
        found = model(images, TARGET, 1)["loss_simkd"]
    torch.testing.assert_close(found, expected)


def test_a_run_is_evaluated_and_goes_on_with_the_network_that_it_deploys(tmp_path, monkeypatch):
    assert train(tmp_path / "teacher", "SOLVER.EPOCHS", 2) == 0
    options = [
        "SOLVER.EPOCHS", 2, "TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS",
        tmp_path / "teacher/last.pth", "DISTILL.METHODS", "('SimKD',)", "SOLVER.EMA_DECAY", 0.9,
    ]  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(whole, *options, config="student") == 0
    args = argparse.Namespace(
        config_file=whole / "config.yaml", weights=str(whole / "last.pth"), opts=[],
        json=str(tmp_path / "accuracy.json"),
    )  # fmt: skip
    here(evaluate_main, args)
    found = json.loads((tmp_path / "accuracy.json").read_text())
    summary = json.loads((whole / "summary.json").read_text())
    assert found == pytest.approx({name: summary["last"][name] for name in found})
    with monkeypatch.context() as patched:
        sends(patched, 2, calls=5)
        assert train(stopped, *options, config="student") == 128 + 2
    assert train(stopped, *options, config="student", resume=True) == 0
    assert_same_end(whole, stopped)


def test_a_teacher_without_one_last_layer_behind_its_maps_is_refused():
    student, teacher = (create_model(x, num_classes=5) for x in ("resnet8", "torchvision/vgg11"))
    with pytest.raises(ValueError, match="VGG has 512 channels there and a last layer of 4096"):
        ReusedClassifier(student, teacher, (64, 64), 2)
    teacher = create_model("torchvision/squeezenet1_1", num_classes=5)
    with pytest.raises(ValueError, match=r"SqueezeNet has .* and no linear layer"):
        ReusedClassifier(student, teacher, (64, 64), 2)


@pytest.mark.parametrize("name", ["vgg8", "MobileNetV2", "wrn_16_1", "torchvision/resnet18"])
def test_any_network_may_be_cut(name):
    student = create_model(name, num_classes=5)
    model = ReusedClassifier(student, create_model("resnet14", num_classes=5), (32, 32), 2).eval()
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    shared = {id(x) for x in student.parameters()}
    assert all(id(x) in shared for x in model.trunk.parameters())
    assert not any(isinstance(x, nn.Linear) for x in model.trunk.modules())


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="7 classes"):
        build(config(tmp_path, methods=("SimKD",)), classes=7)
