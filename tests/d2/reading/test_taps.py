import pytest
import torch
from torch import nn

from reviewkd_det.d2.reading.taps import only_call, tapped
from reviewkd_det.d2.reading.unlabeled import joined_backbone


class Part(nn.Module):
    def forward(self, x, scale=2, *, shift=0):
        return scale * x + shift


class Model(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.part, self.call = Part(), call

    def forward(self):
        return self.call(self.part)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda part: part(1), {"x": 1}),
        (lambda part: part(1, 3, shift=4), {"x": 1, "scale": 3, "shift": 4}),
        (lambda part: part(shift=4, scale=3, x=1), {"x": 1, "scale": 3, "shift": 4}),
        (lambda part: part(1, shift=4), {"x": 1, "shift": 4}),
    ],
)
def test_arguments_are_known_by_the_names_of_the_parameters(call, expected):
    model = Model(call)
    with tapped(model, ["part"]) as calls:
        output = model()
    found = only_call(calls, "part")
    assert found.inputs == expected
    assert found.output == output
    assert not model.part._forward_hooks


def test_calls_other_than_one_are_an_error():
    model = Model(lambda part: part(part(1)))
    with tapped(model, ["part"]) as calls:
        model()
    with pytest.raises(RuntimeError, match="its part once per training step; got 2 calls"):
        only_call(calls, "part")


class Backbone(nn.Module):
    def forward(self, images, flag=False):
        return {"p2": images[:, :1, ::4, ::4]}


class Detector(nn.Module):
    """Calls its backbone by keywords."""

    pixel_mean, pixel_std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)

    def __init__(self):
        super().__init__()
        self.backbone = Backbone()

    def forward(self, batch):
        return self.backbone(images=batch, flag=True)


def test_more_images_join_the_backbone_and_the_detector_sees_its_own():
    model, batch = Detector(), torch.rand(2, 3, 8, 12)
    with joined_backbone(model, [torch.ones(3, 4, 8)]) as calls:
        levels = model(batch)
    assert levels["p2"].shape == (2, 1, 2, 3)
    (call,) = calls
    assert call.size == (8, 12)
    assert call.levels["p2"].shape == (3, 1, 2, 3)
    torch.testing.assert_close(call.levels["p2"][:2], levels["p2"])
    assert call.levels["p2"][2].sum() == 2  # one cell of 4 x 4 pixels of 1 twice, then padding


class Wrapped(nn.Module):
    """Names no parameters, as what torch.compile returns."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


@pytest.mark.parametrize("images", [[], [torch.ones(3, 4, 8)]])
def test_a_backbone_that_names_no_parameters_is_read_too(images):
    model, batch = Detector(), torch.rand(2, 3, 8, 12)
    model.backbone = Wrapped(model.backbone)
    model.forward = lambda batch: model.backbone(batch, True)
    with joined_backbone(model, images) as calls:
        levels = model(batch)
    assert calls[0].size == (8, 12)
    assert len(calls[0].levels["p2"]) == 2 + len(images)
    assert len(levels["p2"]) == 2
