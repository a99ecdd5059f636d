"""Losses against those of torchdistill, where it is installed: `pip install torchdistill`."""

import pytest
import torch

from reviewkd_det.core import (
    attention_loss,
    distillation_loss,
    hierarchical_context_loss,
)
from reviewkd_det.core.methods.dist import relation_loss
from reviewkd_det.core.methods.pkt import transfer_loss
from reviewkd_det.core.methods.rkd import angle_loss, distance_loss
from reviewkd_det.core.rows import standardized

peers = pytest.importorskip("torchdistill.losses.mid_level")
GENERATOR = torch.Generator().manual_seed(1)
TARGET = torch.arange(8) % 10
PATHS = "net", "output", "net", "output"


def draw(*shape):
    return [torch.randn(*shape, generator=GENERATOR, dtype=torch.float64) for _ in range(2)]


def theirs(loss, student, teacher, *more):
    """What a loss of theirs says of these outputs."""
    found = loss({"net": {"output": student}}, {"net": {"output": teacher}}, *more)
    return found.item()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logits(temperature):
    student, teacher = draw(8, 10)
    parts = {"alpha": 1e-12, "beta": 1.0}  # without a cross entropy it leaves out T^2
    kd = peers.KDLoss(*PATHS, temperature=temperature, **parts)
    found = distillation_loss(student, teacher, temperature=temperature).item()
    assert found == pytest.approx(theirs(kd, student, teacher, TARGET), rel=1e-9)
    kd = peers.LogitStdKDLoss(*PATHS, temperature=temperature, **parts)
    found = distillation_loss(
        standardized(student), standardized(teacher), temperature=temperature
    ).item()
    assert found == pytest.approx(theirs(kd, student, teacher, TARGET), rel=1e-6)
    dist = peers.DISTLoss(*PATHS, beta=2.0, gamma=0.5, tau=temperature)
    found = relation_loss(student, teacher, beta=2.0, gamma=0.5, temperature=temperature)
    assert found.item() == pytest.approx(theirs(dist, student, teacher), rel=1e-6)


def test_vectors():
    student, teacher = draw(8, 16)
    found = transfer_loss(student, teacher).item()
    assert found == pytest.approx(theirs(peers.PKTLoss(*PATHS), student.clone(), teacher.clone()))
    for weights, loss in (((1.0, 0.0), distance_loss), ((0.0, 1.0), angle_loss)):
        rkd = peers.RKDLoss("net", "net", *weights, reduction="mean")
        assert loss(student, teacher).item() == pytest.approx(theirs(rkd, student, teacher))


def test_levels():
    student, teacher = draw(4, 6, 8, 8)
    place = {"io": "output", "path": "net"}
    at = peers.ATLoss({"pair": {"student": place, "teacher": place}}, mode="code")
    assert attention_loss(student, teacher).item() == pytest.approx(theirs(at, student, teacher))
    hcl = peers.HierarchicalContextLoss(*PATHS)
    found = hierarchical_context_loss(student, teacher).item()
    assert found == pytest.approx(theirs(hcl, (student.clone(), None), teacher))
