"""CRD's negative images and memories."""

import pytest
import torch
from torch.nn import functional as F

from reviewkd_det.core import find_method
from reviewkd_det.core.methods.crd import OtherClasses
from tests.core.methods import samples

CLASSES = torch.tensor([2, 0, 1, 2, 2, -1, 0])


def test_every_image_of_another_class_is_drawn_as_often_and_none_of_the_own():
    torch.manual_seed(0)
    drawn = OtherClasses(CLASSES)(torch.arange(7), 20000)
    for own, row in zip(CLASSES, drawn, strict=True):
        counts = torch.bincount(row, minlength=7)
        others = own != CLASSES
        assert not counts[~others].any()
        expected = 20000 / int(others.sum())
        assert ((counts[others] - expected).abs() < 0.1 * expected).all()


def test_a_share_that_is_rounded_up_stays_among_the_images(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.ones(*shape))
    drawn = OtherClasses(CLASSES)(torch.arange(7), 2)
    assert (CLASSES[drawn] != CLASSES[:, None]).all()


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="of two classes or more; got 1"):
        OtherClasses(torch.zeros(4, dtype=torch.long))


def test_memories_take_in_the_rows_of_the_batch_and_no_others():
    built = samples.make(find_method("CRD"), negatives=5).double().train()
    before = built.memory.clone()
    views = [
        samples.view(levels, seed, dtype=torch.float64)
        for levels, seed in ((samples.STUDENT, 1), (samples.SAME_SIZES, 2))
    ]
    built(*views, samples.truth())
    for side, view in enumerate(views):
        rows = F.normalize(built.embed[side](view.vector))
        expected = F.normalize(0.5 * before[side, :3] + 0.5 * rows)
        torch.testing.assert_close(built.memory[side, :3], expected)
    assert torch.equal(built.memory[:, 3:], before[:, 3:])
