"""Whole numbers for keys that take a float, which yacs alone refuses."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from yacs import config as yacs

__all__ = ["whole_numbers_as_floats"]


@contextmanager
def whole_numbers_as_floats() -> Iterator[None]:
    """Inside the block, merging takes `3` for a key whose value is a float, as `3.0`.

    The reverse stays refused, since a key with an integer counts something, and so does a bool,
    which is no number.
    """
    check = yacs._check_and_coerce_cfg_value_type

    def coerce(replacement: Any, original: Any, *where: Any) -> Any:
        if type(replacement) is int and type(original) is float:
            with suppress(OverflowError):
                replacement = float(replacement)
        return check(replacement, original, *where)

    yacs._check_and_coerce_cfg_value_type = coerce
    try:
        yield
    finally:
        yacs._check_and_coerce_cfg_value_type = check
