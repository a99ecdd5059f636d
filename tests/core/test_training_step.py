"""A pass in training mode without gradients changes nothing of ours."""

import torch
from torch import nn

from reviewkd_det.core import LevelScale, is_training_step, without_traces


def test_a_training_step_has_training_mode_and_gradients():
    module = nn.Linear(2, 3)
    assert is_training_step(module)
    with torch.no_grad():
        assert not is_training_step(module)
    assert not is_training_step(module.eval())


def test_buffers_are_put_back_unless_it_is_a_training_step():
    norm, inputs = nn.BatchNorm1d(3), torch.randn(5, 3)
    for gradients, seen in ((False, 0), (True, 1)):
        with torch.set_grad_enabled(gradients), without_traces(norm):
            norm(inputs)
        assert int(norm.num_batches_tracked) == seen
        assert bool(norm.running_mean.any()) == bool(seen)


def test_a_scale_is_measured_in_training_steps_alone():
    scale, levels = LevelScale(1, batches=2), [torch.full((2, 3, 4, 5), 8.0)]
    with torch.no_grad():
        for _ in range(3):
            scale(levels)
    assert int(scale.measured) == 0
    assert not scale.is_fixed
    scale(levels)
    with torch.no_grad():
        (scaled,) = scale([torch.full((2, 3, 4, 5), 16.0)])
    assert scaled.mean() == 2
    assert int(scale.measured) == 1
