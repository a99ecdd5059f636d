import pytest

from reviewkd_det.core import Method, Need, default_method, find_method, register, registry
from reviewkd_det.core.methods.reviewkd import ReviewKD


class Mine(Method):
    needs = Need.LEVELS


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    return register("Mine")(Mine)


def test_a_registered_method_is_found_by_its_name(registered):
    assert find_method("Mine") is Mine
    assert register("Mine")(Mine) is Mine  # as when its file is imported again


def test_the_first_method_is_the_default():
    assert find_method(default_method()) is ReviewKD


def test_a_name_is_taken_once_whatever_its_case(registered):
    for name in ("Mine", "MINE", "ReviewKD"):
        with pytest.raises(ValueError, match=f"method name must be new; got '{name}' of "):
            register(name)(type("Other", (Mine,), {}))


def test_an_unknown_name_brings_the_nearest():
    with pytest.raises(ValueError, match="KEY must name known methods; got 'reviewkd'; the nearest"
                                         " is ReviewKD; known: ReviewKD, "):  # fmt: skip
        find_method("reviewkd", "KEY")
