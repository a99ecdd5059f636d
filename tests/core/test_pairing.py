import pytest

from reviewkd_det.core import Level, pair_by_name, pair_from_coarsest


def levels(**strides):
    return [Level(name, 8, stride=stride) for name, stride in strides.items()]


def test_levels_of_one_name_are_paired_from_high_to_low_resolution():
    ours, theirs = levels(p3=8, p2=4, p7=128), levels(p2=4, p3=8, p6=64)
    assert pair_by_name(ours, theirs) == ["p2", "p3"]
    assert pair_by_name(ours, theirs, ["p3"]) == ["p3"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["p6"], "KEY names 'p6', which the student does not output; it outputs p3, p2, p7"),
        (["p7"], "KEY names 'p7', which the teacher does not output; it outputs p2, p3, p6"),
        (["p2", "p2"], "KEY must name each level once; got p2, p2"),
    ],
)
def test_names_that_do_not_fit_are_refused(wanted, words):
    with pytest.raises(ValueError, match=words):
        pair_by_name(levels(p3=8, p2=4, p7=128), levels(p2=4, p3=8, p6=64), wanted, "KEY")


def test_levels_of_different_strides_or_without_a_common_name_are_refused():
    words = "level 'p3' must have one stride on both sides; got 8 in the student and 16 in the"
    with pytest.raises(ValueError, match=words):
        pair_by_name(levels(p2=4, p3=8), levels(p2=4, p3=16))
    with pytest.raises(ValueError, match=r"in common; .* p2 \(stride 4, 8 .* res4 \(stride 16"):
        pair_by_name(levels(p2=4), levels(res4=16))


def pyramid(*sizes, pooled=False):
    """Levels named by their size, 'p' for the pooled vector."""
    found = [Level(str(size), 8, (size, size)) for size in sizes]
    return found + ([Level("p", 8, (1, 1))] if pooled else [])


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
    pairs = pair_from_coarsest(student, teacher)
    assert tuple(" ".join(level.name for level in side) for side in pairs) == expected


def test_no_level_to_compare_is_refused():
    message = r"both networks must have levels; the student outputs p \(\(1, 1\), 8 channels\)"
    with pytest.raises(ValueError, match=message):
        pair_from_coarsest(pyramid(pooled=True), pyramid(8))
