"""Which class of a student each class of a teacher is, and its probability."""

import pytest
from torch import nn

from reviewkd_det.d2.labels.classes import match_names
from reviewkd_det.d2.labels.mapped import ClassMap
from reviewkd_det.d2.labels.probabilities import with_probabilities


def test_classes_are_mapped_by_name_whatever_their_case():
    assert match_names(["Dog ", "cat", "cow"], 3, ["cat", "dog"], 2) == {0: 1, 1: 0}


def test_names_that_differ_by_their_case_alone_are_different_classes():
    letters = ["A", "a", "B", "b"]
    assert match_names(letters, 4, letters, 4) == {0: 0, 1: 1, 2: 2, 3: 3}
    assert match_names(letters, 4, ["b", "B"], 2) == {2: 1, 3: 0}
    assert match_names(["b"], 1, letters, 4) == {0: 3}


def test_a_name_that_stands_twice_is_mapped_in_equal_lists_alone():
    assert match_names(["a", "b", "a"], 3, ["a", "b", "a"], 3) == {0: 0, 1: 1, 2: 2}
    with pytest.raises(ValueError, match=r"different names; got 'a' twice in the teacher's, \['a'"):
        match_names(["a", "b", "a"], 3, ["b", "a"], 2)


def test_without_names_equal_numbers_are_mapped_one_to_one(caplog):
    assert match_names(None, 2, ["a", "b"], 2) == {0: 0, 1: 1}
    assert "The class names of the teacher are not known" in caplog.text
    with pytest.raises(ValueError, match=r"must have equally many classes .*; got 2 and 3"):
        match_names(None, 3, ["a", "b"], 2)


def test_no_name_in_common_is_refused():
    with pytest.raises(ValueError, match=r"a class name in common; got a, b and c"):
        match_names(["c"], 1, ["a", "b"], 2)


def test_what_a_student_does_not_know_is_background_to_it():
    classes = ClassMap({0: 1, 2: 0}, teacher_count=3, student_count=2)
    assert classes.row([0.5, 0.2, 0.1, 0.2]) == pytest.approx([0.1, 0.5, 0.4])  # of a softmax
    assert classes.row([0.5, 0.2, 0.1]) == [0.1, 0.5]  # of sigmoids
    found = [{"category_id": c, "score": 0.9} for c in (0, 1, 2)]
    assert [x["category_id"] for x in classes.detections(found)] == [1, 0]


def test_a_teacher_without_probabilities_is_refused():
    with (
        pytest.raises(ValueError, match=r"one box head or a dense head .*; got Identity"),
        with_probabilities(nn.Identity()),
    ):
        pass
