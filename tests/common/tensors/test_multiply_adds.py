"""Counting without computing, against counts worked out by hand."""

import pytest
import torch
from torch import nn

from reviewkd_det.common.tensors.multiply_adds import count_multiply_adds

# 2 images of 4 x 6 cells, 8 filters of 3 x 3 x 3.
CONVOLUTION = 2 * 4 * 6 * 8 * 27


def images(*, learns=False):
    return torch.empty(2, 3, 4, 6, device="meta", requires_grad=learns)


@pytest.mark.parametrize(
    ("learning_input", "frozen", "passes"), [(False, False, 2), (True, False, 3), (True, True, 2)]
)
def test_a_convolution_is_counted_by_hand(learning_input, frozen, passes):
    module = nn.Conv2d(3, 8, 3, padding=1).requires_grad_(not frozen)
    count, output = count_multiply_adds(module, images(), backward=False)
    assert count == CONVOLUTION
    assert output.shape == (2, 8, 4, 6)
    count, _ = count_multiply_adds(module, images(learns=learning_input), backward=True)
    assert count == passes * CONVOLUTION  # the output; the gradients of what learns


class Several(nn.Module):
    """Gives outputs of every kind, of which one takes no gradient."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        y = self.head(x)
        return {"a": y, "b": [y + 1, (y * 2, y.detach())]}


def test_all_outputs_are_differentiated_once():
    count, _ = count_multiply_adds(Several(), torch.empty(7, 3, device="meta"), backward=True)
    assert count == 2 * 7 * 3 * 5


class Remembering(nn.Module):
    """Keeps what it computed last."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.last = None

    def forward(self, x):
        self.last = self.body(x)
        return self.last


def test_the_module_and_the_random_state_stay_as_they_were():
    module = Remembering()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    count_multiply_adds(module, images(), backward=True)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert module.last is None
    assert all(p.grad is None and p.device.type == "cpu" for p in module.parameters())
    assert torch.is_grad_enabled()


def test_what_needs_values_is_not_counted():
    class NeedsValues(nn.Module):
        def forward(self, x):
            return x * x.mean().item()

    with pytest.raises(RuntimeError, match="meta"):
        count_multiply_adds(NeedsValues(), images(learns=True), backward=True)
