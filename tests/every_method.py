"""The registered methods as parameters: three in each run of the tests, all in the slow one."""

import pytest

from reviewkd_det.core import Need, registered_methods

ALWAYS = ("ReviewKD", "PKD", "DKD")


NOTHING = Need(0)


def each_method(gives, *, but=NOTHING):
    """Decorate a test with the method's name as its argument `name`.

    Args:
        gives: what the customer gives; methods with other needs are left out.
        but: methods with one of these needs are left out too.
    """
    slow = pytest.mark.slow
    names = [
        name
        for name, method in registered_methods().items()
        if not method.needs & ~gives and not method.needs & but
    ]
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in ALWAYS else slow) for name in names]
    )
