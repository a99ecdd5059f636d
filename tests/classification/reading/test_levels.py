"""Which levels are compared, and through how many channels."""

import pytest

from classification.distilled import ReviewKD, pair_levels


@pytest.mark.parametrize(("coarsest", "mid"), [(6, 6), (512, 512), (2048, 512)])
def test_the_fusions_share_the_coarsest_channels_of_the_student_up_to_512(coarsest, mid):
    shapes = [(3, 4, 4), (coarsest, 1, 1)]
    path = ReviewKD(shapes, [(4, 4, 4), (5, 1, 1)]).distiller.path
    assert path.levels[0].reduce[0].out_channels == mid
    path = ReviewKD(shapes, [(4, 4, 4), (5, 1, 1)], mid_channels=9).distiller.path
    assert path.levels[0].reduce[0].out_channels == 9
    assert (path.levels[0].expand[0].out_channels, path.levels[1].expand[0].out_channels) == (4, 5)


def pyramid(*sizes, pooled=False):
    """Levels named by their size, 'p' for the pooled vector."""
    return {str(s): (8, s, s) for s in sizes} | ({"p": (8, 1, 1)} if pooled else {})


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (pyramid(32, 16, 8), pyramid(32, 16, 8), ("32 16 8", "32 16 8")),
        (pyramid(16, 8), pyramid(32, 16, 8), ("16 8", "16 8")),
        (pyramid(64, 32, 16, 8), pyramid(7, 4), ("16 8", "7 4")),
        (pyramid(16, 8, pooled=True), pyramid(32, 16, 8, pooled=True), ("16 8 p", "16 8 p")),
        (pyramid(16, 8, pooled=True), pyramid(32, 16, 8), ("16 8", "16 8")),
        (pyramid(16, 8), pyramid(32, 16, 8, pooled=True), ("16 8", "16 8")),
        (pyramid(pooled=True), pyramid(8, pooled=True), ("p", "p")),
    ],
)
def test_levels_are_paired_from_the_coarsest_on(student, teacher, expected):
    assert pair_levels(student, teacher) == tuple(tuple(names.split()) for names in expected)


def test_no_level_to_compare_is_refused():
    message = r"both networks must have levels; got {'p': \(8, 1, 1\)} and {'8': \(8, 8, 8\)}"
    with pytest.raises(ValueError, match=message):
        pair_levels(pyramid(pooled=True), pyramid(8))
