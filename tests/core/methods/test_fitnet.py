import pytest
import torch

from reviewkd_det.core import Level, Side, Truth, View, find_method
from reviewkd_det.core.methods.fitnet import build_regressor


@pytest.mark.parametrize(
    ("size", "teacher_size", "kind", "kernel"),
    [
        ((8, 12), (8, 12), torch.nn.Conv2d, (1, 1)),
        ((8, 12), (4, 6), torch.nn.Conv2d, (3, 3)),
        ((4, 6), (8, 12), torch.nn.ConvTranspose2d, (4, 4)),
        ((8, 12), (6, 12), torch.nn.Conv2d, (3, 1)),
        (None, None, torch.nn.Conv2d, (1, 1)),
    ],
)
def test_the_regressor_leaves_the_teachers_size(size, teacher_size, kind, kernel):
    regress = build_regressor(Level("a", 3, size), Level("b", 5, teacher_size))
    assert type(regress[0]) is kind
    assert regress[0].kernel_size == kernel
    maps = regress(torch.randn(2, 3, *(size or (8, 12))))
    assert maps.shape == (2, 5, *(teacher_size or (8, 12)))
    assert (maps >= 0).all()


def test_a_map_that_is_neither_larger_nor_half_as_large_is_refused():
    with pytest.raises(ValueError, match=r"got a \(3, 4\) for b \(8, 12\)"):
        build_regressor(Level("a", 3, (3, 4)), Level("b", 5, (8, 12)))


def test_levels_that_differ_by_a_cell_are_compared_all_the_same():
    method = find_method("FitNet")
    sides = [Side((Level("p5", channels, stride=32),)) for channels in (3, 5)]
    built = method(method.Settings(levels=(0,)), *sides)
    student, teacher = torch.randn(2, 3, 5, 7), torch.randn(2, 5, 6, 7)
    assert built(View([student]), View([teacher]), Truth())["p5"].isfinite()
