"""The line a run begins with and the block it ends with."""

import json
import re

import pytest
import torch
from torch import nn

from classification.config import get_config
from classification.data import DataSettings, build_loaders
from classification.distilled import DistilledClassifier
from classification.models import create_model
from classification.reading.taps import TappedModel
from classification.runs.summary import cost_of, summarize
from reviewkd_det.core import FrozenTeacher, Side, Truth, View, Weighted, find_method
from tests.classification.running import paste, train
from tests.flops import work

TAPS = {"resnet8": ("layer1", "layer2", "layer3"), "resnet20": ("layer1", "layer2", "layer3")}


def classifier(name="ReviewKD"):
    student, teacher = (
        TappedModel(create_model(model, num_classes=10), TAPS[model]) for model in TAPS
    )
    sides = [Side(model.find_levels(16), 10) for model in (student, teacher)]
    method = find_method(name)
    return DistilledClassifier(
        student,
        nn.Identity(),
        teacher=FrozenTeacher(teacher),
        methods={name: Weighted(method(method.Settings(), *sides))},
    ).train()


@pytest.mark.parametrize("method", ["ReviewKD", "KD"])
def test_the_cost_is_that_of_a_real_step(method):
    model, seen = classifier(method), {}
    images, target = torch.randn(2, 3, 16, 16), torch.tensor([1, 2])

    def flat(name, module):
        seen[name] = module(images)
        return [seen[name].logits, *seen[name].levels]

    own = work(lambda: flat("student", model.student), learns=True)
    added = work(lambda: flat("teacher", model.teacher.module), learns=False)
    if method == "ReviewKD":
        levels = [level.detach().requires_grad_() for level in seen["student"].levels]
        student = View(levels, seen["student"].logits.detach())
        loss = model.methods[method]
        added += work(lambda: loss(student, seen["teacher"], Truth(target)).values(), learns=True)
    assert cost_of(model, 16) == pytest.approx(added / own, rel=1e-6)


def test_the_cost_changes_neither_model_nor_random_state():
    model = classifier()
    parts = [model, model.teacher.module]
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in parts]
    state = torch.get_rng_state()
    assert cost_of(model, 16) > 0
    for part, values in zip(parts, before, strict=True):
        assert all(torch.equal(v, values[k]) for k, v in part.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_what_cannot_be_counted_is_left_out():
    model = classifier()
    model.student.register_forward_pre_hook(lambda _, args: args[0].sum().item())
    assert cost_of(model, 16) is None


@pytest.mark.parametrize(("methods", "top1"), [(("KD",), 80.0), ((), None)])
def test_a_teacher_is_named_with_its_accuracy_where_it_teaches(methods, top1):
    cfg = get_config()
    cfg.merge_from_list(["TEACHER.NAME", "resnet20", "DISTILL.METHODS", methods])
    done = {"epoch": 2, "top1": 70.0, "top5": 90.0}
    progress = {"epoch": 2, "last": done, "best": done, "teacher": {"top1": 80.0, "top5": 95.0},
                "train_seconds": 1.0, "wall_seconds": 2.0}  # fmt: skip
    settings = DataSettings("digits", "", 8, 100, "none", 0, "device", 0)
    data = build_loaders(settings, batch_size=20, eval_batch_size=500)
    summary = summarize(cfg, progress, nn.Linear(2, 3), data)
    assert (summary["teacher"], summary["teacher_top1"]) == ("resnet20" if methods else "", top1)
    assert summary["images_per_second"] == 200.0
    assert summary["parameters"] == 9


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("with a space")
    train(folder / "teacher", "SOLVER.EPOCHS", "1")
    teacher = ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", folder / "teacher" / "last.pth"]
    train(folder / "student", "SOLVER.EPOCHS", "2", *teacher, config="student")
    return folder


def log(folder):
    return (folder / "log.txt").read_text(encoding="utf-8")


def test_a_run_says_what_learns_from_what(runs):
    (line,) = [x for x in log(runs / "student").splitlines() if "Distilling " in x]
    assert re.search(
        r" Distilling resnet8 \(78,042 parameters\) from resnet8 \(78,042\), on 1 x \w+, with "
        r"ReviewKD at \d levels; [\d,]+ parameters more in training only; for each image "
        r"teacher and methods add \d\.\d\d times the multiply-adds of the student "
        r"\(forward and backward\)$",
        line,
    )
    (line,) = [x for x in log(runs / "teacher").splitlines() if "Training " in x]
    assert re.search(r" Training resnet8 \(78,042 parameters\) without a teacher, on 1 x ", line)


def test_a_run_says_how_large_the_methods_losses_are(runs):
    (line,) = [x for x in log(runs / "student").splitlines() if "at the start" in x]
    assert re.search(r"loss_reviewkd is [\d.e+]+ times the student's own losses at the start", line)
    assert "at the start" not in log(runs / "teacher")


def test_a_method_that_has_ended_is_not_compared(tmp_path):
    train(tmp_path / "teacher", "SOLVER.EPOCHS", "1")
    teacher = ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", tmp_path / "teacher" / "last.pth"]
    methods = ["DISTILL.METHODS", "('KD', 'DKD')", "DISTILL.KD.DECAY_EPOCHS", "2.0"]
    methods += ["DISTILL.DKD.WARMUP_EPOCHS", "2.0", "SOLVER.EPOCHS", "2"]
    train(tmp_path / "student", *methods, *teacher, config="student")
    told = log(tmp_path / "student")
    assert re.findall(r"(loss_\w+) is .* the student's own losses", told) == ["loss_dkd"]


def block(folder):
    title, *lines = log(folder).rpartition("Done: ")[2].splitlines()
    return title, dict(re.match(r"  ([\w ,]+:) +(.+)", line).groups() for line in lines)


def test_the_commands_of_a_run_can_be_pasted(runs, monkeypatch, capsys):
    folder = runs / "student"
    title, lines = block(folder)
    assert re.fullmatch(r"resnet8, 2 epochs with seed \d+ in \d+ s, \d+ images/s", title)
    summary = json.loads((folder / "summary.json").read_text())
    for kind in ("last", "best"):
        at = summary[kind]
        assert lines[f"{kind}:"] == (
            f"top-1 {at['top1']:.2f}, top-5 {at['top5']:.2f} after epoch {at['epoch']}; "
            f"{folder / f'{kind}.pth'}"
        )
    paste(monkeypatch, lines["evaluate it:"])
    assert f"{summary['last']['top1']:.2f}" in capsys.readouterr().out
    compare = lines["compare it:"]
    assert f"teacher={runs / 'teacher'}" in compare
    paste(monkeypatch, compare)
    assert "report.html" in capsys.readouterr().out
