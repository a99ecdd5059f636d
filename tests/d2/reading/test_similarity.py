import logging

import pytest
import torch

from reviewkd_det.core import linear_cka
from reviewkd_det.d2.reading.similarity import LevelSimilarity


def levels(*seeds):
    return [
        torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]


def test_levels_are_compared_every_100_iterations():
    similarity, student, teacher = LevelSimilarity(), levels(0, 1), levels(2, 3)
    found = similarity.measure(200, ("p2", "p3"), student, teacher)
    assert found == {
        name: pytest.approx(linear_cka(x, y).item())
        for name, x, y in zip(("p2", "p3"), student, teacher, strict=True)
    }
    assert similarity.measure(201, ("p2", "p3"), student, teacher) == {}


@pytest.mark.parametrize("comes_nearer", [True, False])
def test_levels_that_come_no_nearer_are_warned_of(caplog, comes_nearer):
    similarity, (teacher,), (far,) = LevelSimilarity(), levels(0), levels(1)
    near = teacher + 0.1 * far
    order = (far, near) if comes_nearer else (near, far)
    with caplog.at_level(logging.WARNING, logger="reviewkd_det"):
        for step, student in ((0, order[0]), (1000, order[1]), (2000, order[1])):
            similarity.measure(step, ("p2",), [student], [teacher])
    assert len(caplog.messages) == (not comes_nearer)
    assert comes_nearer or "similarity (linear CKA) went from p2 0.9" in caplog.messages[0]
