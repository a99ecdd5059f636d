"""The registered methods as parameters: three in each run of the tests, all in the slow one."""

import pytest

from reviewkd_det.core import registered_methods

ALWAYS = ("ReviewKD", "PKD", "DKD")


def each_method():
    """Decorate a test with the method's name as its argument `name`."""
    slow = pytest.mark.slow
    return pytest.mark.parametrize(
        "name",
        [pytest.param(name, marks=() if name in ALWAYS else slow) for name in registered_methods()],
    )
