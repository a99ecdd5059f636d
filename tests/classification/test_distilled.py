import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from classification.distilled import DistilledClassifier
from classification.reading.preprocess import Preprocess
from classification.reading.taps import TappedModel
from reviewkd_det.core import FrozenTeacher, Side, Weighted, find_method
from tests import reference

TAPS = ("fine.1", "coarse.1", "mean")
TARGET = torch.tensor([4, 0, 2])
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
TEACHER_MEAN, TEACHER_STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


class Tiny(nn.Module):
    """Two stages and a pooled vector."""

    def __init__(self, fine, coarse, stride):
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, fine, 3, stride, 1), nn.BatchNorm2d(fine))
        self.coarse = nn.Sequential(nn.Conv2d(fine, coarse, 3, 2, 1), nn.BatchNorm2d(coarse))
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(coarse, 5)

    def levels(self, x):
        fine = self.fine(x)
        coarse = self.coarse(fine.relu())
        return [fine, coarse, coarse.relu().mean((2, 3), keepdim=True)]

    def forward(self, x):
        x = self.coarse(self.fine(x).relu()).relu()
        return self.classifier(self.dropout(x.mean((2, 3))))


def made(shape, key):
    return torch.randint(
        256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(key)
    )


IMAGES = made((3, 3, 20, 28), 5)


def classifier(warmup=20.0, teacher_preprocess=True, cross_entropy=1.0):
    """A classifier with all methods, its student and its teacher."""
    torch.manual_seed(0)
    student, teacher = Tiny(4, 6, 2), Tiny(7, 8, 1)
    student.dropout.p = 0.0
    sides = [Side(TappedModel(model, TAPS).find_levels(16), 5) for model in (student, teacher)]
    settings = {
        "ReviewKD": {"mid_channels": 5},
        "KD": {"temperature": 4.0},
        "DKD": {"alpha": 1.5, "beta": 8.0, "temperature": 2.0},
    }
    methods = {
        name: find_method(name)(find_method(name).Settings(**values), *sides)
        for name, values in settings.items()
    }
    model = DistilledClassifier(
        TappedModel(student, TAPS),
        Preprocess(MEAN, STD),
        teacher=FrozenTeacher(TappedModel(teacher, TAPS)),
        teacher_preprocess=Preprocess(TEACHER_MEAN, TEACHER_STD) if teacher_preprocess else None,
        methods={
            "ReviewKD": Weighted(methods["ReviewKD"], 0.6, warmup),
            "KD": Weighted(methods["KD"], 0.9, 0.0),
            "DKD": Weighted(methods["DKD"], 0.3, 2 * warmup),
        },
        cross_entropy_weight=cross_entropy,
    )
    return model, student, teacher


def normalised(mean, std):
    mean, std = (torch.tensor(x)[:, None, None] for x in (mean, std))
    return (IMAGES.float() / 255 - mean) / std


def naive_dkd(student, teacher, alpha, beta, temperature):
    """Zhao et al., equation 7, sample by sample in float64."""
    total = 0.0
    for ours, theirs, target in zip(student.tolist(), teacher.tolist(), TARGET, strict=True):
        p, q = ([math.exp(x / temperature) for x in row] for row in (ours, theirs))
        p, q = ([x / sum(row) for x in row] for row in (p, q))
        binary, others = 0.0, 0.0
        for k, (ours_k, theirs_k) in enumerate(zip(p, q, strict=True)):
            if k == target:
                binary += theirs_k * math.log(theirs_k / ours_k)
                binary += (1 - theirs_k) * math.log((1 - theirs_k) / (1 - ours_k))
            else:
                ours_k, theirs_k = ours_k / (1 - p[target]), theirs_k / (1 - q[target])
                others += theirs_k * math.log(theirs_k / ours_k)
        total += temperature**2 * (alpha * binary + beta * others)
    return total / len(TARGET)


@pytest.mark.parametrize("epoch", [0.5, 1, 10, 20, 30])
@pytest.mark.parametrize("other_input", [True, False])
def test_the_losses_are_those_of_a_naive_computation(epoch, other_input):
    model, student, teacher = classifier(teacher_preprocess=other_input, cross_entropy=0.7)
    plain = copy.deepcopy(student)
    path = copy.deepcopy(model.methods["ReviewKD"].distiller.path.state_dict())
    losses = model.train()(IMAGES, TARGET, epoch)

    inputs = normalised(MEAN, STD)
    levels, logits = plain.levels(inputs), plain(inputs)
    inputs = normalised(TEACHER_MEAN, TEACHER_STD) if other_input else inputs
    with torch.no_grad():
        teacher_levels, teacher_logits = teacher.levels(inputs), teacher(inputs)
    sizes = [tuple(level.shape[-2:]) for level in teacher_levels]
    assert sizes == [(20, 28), (10, 14), (1, 1)]
    fused = reference.review_walk(path, levels, sizes, training=True)
    hcl = sum(reference.hcl(f, t) for f, t in zip(fused, teacher_levels, strict=True))
    p_teacher = (teacher_logits / 4).softmax(1)
    kd = 16 * (p_teacher * (p_teacher.log() - (logits / 4).log_softmax(1))).sum(1).mean()
    expected = {
        "loss_ce": 0.7 * -logits.log_softmax(1)[range(3), TARGET].mean().item(),
        "loss_reviewkd": 0.6 * min(1, epoch / 20) * hcl.item(),
        "loss_kd": 0.9 * kd.item(),
        "loss_dkd": 0.3 * min(1, epoch / 40) * naive_dkd(logits, teacher_logits, 1.5, 8.0, 2.0),
    }
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)
    assert all(loss.shape == () for loss in losses.values())


def test_the_losses_are_one_graph_to_a_compiler():
    model, *_ = classifier()
    explained = torch._dynamo.explain(model.train().compute_terms)(
        IMAGES, TARGET, None, [*model.methods]
    )
    assert explained.graph_count == 1, explained.break_reasons
    made_of_numbers = (torch.tensor, torch.as_tensor)  # on the CPU: no CUDA graph copies them
    assert not [n for n in explained.graphs[0].graph.nodes if n.target in made_of_numbers]


def test_compiled_losses_and_gradients_are_those_of_the_plain_code(caplog):
    plain, compiled = (classifier()[0].train() for _ in range(2))
    compiled.compile_losses("default")
    for epoch in (1, 2):  # which changes the weights of the methods
        losses = [model(IMAGES, TARGET, epoch) for model in (plain, compiled)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
        for of_one in losses:
            sum(of_one.values()).backward()
    theirs = dict(compiled.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(plain.named_buffers()), dict(compiled.named_buffers()))
    assert "uncompiled" not in caplog.text


def test_a_step_leaves_the_teacher_bit_identical_and_reaches_every_student_parameter():
    model, student, teacher = classifier()
    before = copy.deepcopy(teacher.state_dict())
    model.train()
    assert not any(module.training for module in model.teacher.module.modules())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sum(model(IMAGES, TARGET, 1).values()).backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    # Each review parameter too; batch norm removes what a constant would add.
    assert all(p.grad.any() for p in model.methods.parameters())
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert student.fine[1].num_batches_tracked == 1


def test_the_state_dict_holds_the_student_and_the_methods_only():
    model, student, _ = classifier()
    parts = {f"student.net.{key}" for key in student.state_dict()}
    review = model.methods["ReviewKD"].state_dict()
    parts |= {f"methods.ReviewKD.{key}" for key in review}
    assert set(model.state_dict()) == parts
    model.load_state_dict(model.state_dict())


def test_without_methods_it_is_the_plain_student():
    torch.manual_seed(0)
    student = Tiny(4, 6, 2)
    model = DistilledClassifier(TappedModel(student), Preprocess(MEAN, STD)).eval()
    logits = student(normalised(MEAN, STD))
    torch.testing.assert_close(model.classify(IMAGES), logits)
    losses = model(IMAGES, TARGET, 1)
    assert list(losses) == ["loss_ce"]
    torch.testing.assert_close(losses["loss_ce"], F.cross_entropy(logits, TARGET))


def test_classifying_asks_no_teacher():
    model, student, _ = classifier()
    calls = []
    model.teacher.register_forward_hook(lambda *_: calls.append(1))
    expected = student.eval()(normalised(MEAN, STD))
    torch.testing.assert_close(model.eval().classify(IMAGES), expected)
    assert calls == []


def test_methods_that_have_ended_cost_nothing():
    model = classifier()[0].train()
    ends = {"ReviewKD": 3, "KD": 5, "DKD": 5}
    model.weighted = {
        name: x._replace(warmup_steps=0.0, decay_steps=ends[name])
        for name, x in model.weighted.items()
    }
    calls = []
    model.teacher.register_forward_hook(lambda *_: calls.append(1))
    whole, part, none = (model(IMAGES, TARGET, epoch) for epoch in (2, 3, 5))
    positive = [[name for name, loss in x.items() if loss > 0] for x in (whole, part, none)]
    assert positive == [list(whole), ["loss_ce", "loss_kd", "loss_dkd"], ["loss_ce"]]
    assert whole.keys() == part.keys() == none.keys()
    assert len(calls) == 2
    sum(none.values()).backward()
    assert all(torch.equal(x.grad, torch.zeros_like(x)) for x in model.methods.parameters())
