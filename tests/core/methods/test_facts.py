"""The losses against the numbers that peers' published code gives; see tests/facts/README.md."""

import numpy as np
import pytest
import torch

from reviewkd_det import core
from tests import facts_rule

FACTS = facts_rule.load("methods_reference.json")
SHAPE, POOLED = (4, 6, 8, 8), (4, 6, 4, 4)
TARGET = torch.arange(8) % 10


def student(shape):
    """The input of the facts, in float64."""
    count = int(np.prod(shape))
    values = np.random.RandomState(count).standard_normal(count)
    return torch.from_numpy(values.reshape(shape))


def teacher(shape):
    """The same rule on the reversed shape, whose axes are then reversed."""
    return student(shape[::-1]).permute(*reversed(range(len(shape))))


def kd(temperature):
    return core.distillation_loss(student((8, 10)), teacher((8, 10)), temperature=temperature)


def dkd(alpha, beta, temperature):
    logits = student((8, 10)), teacher((8, 10))
    settings = {"alpha": alpha, "beta": beta, "temperature": temperature}
    return core.decoupled_distillation_loss(*logits, TARGET, **settings)


FOUND = {
    "kd_T4": lambda: kd(4.0),
    "dkd_a1_b8_T4": lambda: dkd(1.0, 8.0, 4.0),
    "dkd_tckd_T4": lambda: dkd(1.0, 0.0, 4.0),
    "dkd_nckd_T4": lambda: dkd(0.0, 1.0, 4.0),
    "dkd_det_a1_b025_T1": lambda: dkd(1.0, 0.25, 1.0),
    "at_same": lambda: core.attention_loss(student(SHAPE), teacher(SHAPE)),
    "at_pool": lambda: core.attention_loss(student(SHAPE), teacher(POOLED)),
    "pkd_same": lambda: core.correlation_loss(student(SHAPE), teacher(SHAPE)),
    "pkd_resize": lambda: core.correlation_loss(student(POOLED), teacher(SHAPE)),
    "cwd_tau1": lambda: core.channel_loss(student(SHAPE), teacher(SHAPE)),
    "cwd_tau4": lambda: core.channel_loss(student(SHAPE), teacher(SHAPE), temperature=4.0),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_loss_is_what_published_code_gives(name):
    assert float(FOUND[name]()) == pytest.approx(FACTS[name]["value"], rel=1e-6)


def test_attention_ignores_the_scale_of_an_image():
    maps = student(SHAPE), teacher(SHAPE)
    expected = core.attention_loss(*maps)
    torch.testing.assert_close(core.attention_loss(-3 * maps[0], 0.1 * maps[1]), expected)


def test_correlation_ignores_scale_and_offset_of_a_channel():
    ours, theirs = student(SHAPE), teacher(SHAPE)
    scale, offset = torch.rand(2, 6, 1, 1, dtype=torch.float64) + 0.5
    expected = core.correlation_loss(ours, theirs)
    found = core.correlation_loss(scale * ours + offset, theirs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)  # 1e-6 is added to deviations


def test_channel_distributions_ignore_a_constant_on_a_whole_map():
    ours, theirs = student(SHAPE), teacher(SHAPE)
    offset = torch.rand(4, 6, 1, 1, dtype=torch.float64)
    expected = core.channel_loss(ours, theirs)
    torch.testing.assert_close(core.channel_loss(ours + offset, theirs), expected)


@pytest.mark.parametrize("loss", [core.attention_loss, core.correlation_loss, core.channel_loss])
def test_equal_maps_lose_nothing(loss):
    assert float(loss(student(SHAPE), student(SHAPE).clone())) == pytest.approx(0, abs=1e-12)
