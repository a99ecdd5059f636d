import pytest

from reviewkd_det.common.data.classes import map_classes, require_same_classes


def test_classes_are_found_by_name():
    order = map_classes(["cat", "dog"], ["bird", "dog", "cat"], whose="a", onto_whose="b")
    assert order == [2, 1]


@pytest.mark.parametrize(
    ("names", "onto", "words"),
    [
        (["cat", "dog"], ["dog", "Cat"], r"'cat', 'dog'\] of a .*'dog', 'Cat'\] of b; missing: "),
        (["Cat"], ["cat", "dog"], r"missing: 'Cat' \(the nearest is 'cat'\)"),
        (["cat", "cat"], ["cat", "dog"], r"a has 'cat' twice; got \['cat', 'cat'\] of a"),
        (["cat"], ["cat", "dog", "dog"], r"b has 'dog' twice"),
    ],
)
def test_a_name_that_is_missing_or_there_twice_is_refused_with_both_lists(names, onto, words):
    with pytest.raises(ValueError, match=words):
        map_classes(names, onto, whose="a", onto_whose="b")


def test_lists_that_differ_are_shown_and_long_ones_are_cut():
    both = {"whose": "'val'", "known_whose": "'train'", "fix": "mend it"}
    require_same_classes(["cat", "dog"], ("cat", "dog"), **both)
    words = (
        r"classes of 'val' .* 'train', .* got \['dog', 'cat'\] instead of \['cat', 'dog'\]; mend"
    )
    with pytest.raises(ValueError, match=words):
        require_same_classes(["dog", "cat"], ["cat", "dog"], **both)
    many = [f"class {i}" for i in range(20)]
    changed = [*many[:15], "other", *many[16:]]
    with pytest.raises(ValueError, match=r"\.\.\.\] \(20\); class 15 is 'other' instead of 'class"):
        require_same_classes(changed, many, **both)
