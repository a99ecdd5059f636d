"""Pickles of plain data, read without calling what they name.

A pickle is a program that calls functions by name. Here a name is looked up in `PLAIN_GLOBALS`
alone, and what stands there makes the same values but takes nothing except numbers: NumPy's own
functions trust the file, which could forge an array of objects out of bytes.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PLAIN_GLOBALS", "read_plain_pickle", "refusal_reason"]

# As NumPy writes them into a pickle, without the byte order: f4, i8, b1, ...
NUMBER_CODES = frozenset(np.dtype(code).str[1:] for code in "?bBhHiIlLqQefdgFDG")
# With these words torch advises to switch the check off.
ADVICE = ("weights_only", "Weights only load failed")


class PlainDtype:
    """Stands for `numpy.dtype`; holds one of a number."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, *_: Any) -> None:
        if code not in NUMBER_CODES:
            raise ValueError(f"pickle must hold arrays of numbers alone; got one of {code!r:.80}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order; the rest of the state could contradict the number."""
        self.dtype = self.dtype.newbyteorder(state[1])


class PlainArray(np.ndarray[Any, Any]):
    """Stands for `numpy.ndarray` and the function that begins one; empty until its state is set."""

    __slots__ = ()

    def __new__(cls, *_: Any) -> "PlainArray":
        """Make an empty array, whatever the arguments."""
        return super().__new__(cls, 0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take shape, numbers and their bytes."""
        version, shape, dtype, is_fortran, content = state
        super().__setstate__((version, shape, dtype.dtype, is_fortran, content))


class _Maker:
    """A function that a pickle may call and, unlike a plain one, not set the attributes of."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"pickle must not alter functions; got {state!r:.80}")


_NUMPY_SCALAR: Any = np.float32(0).__reduce__()[0]
_NUMPY_FROM_BUFFER: Any = np.zeros(1).__reduce_ex__(5)[0]


@_Maker
def _scalar(dtype: PlainDtype, content: Any) -> Any:
    return _NUMPY_SCALAR(dtype.dtype, content)


@_Maker
def _from_buffer(content: Any, dtype: PlainDtype, *layout: Any) -> Any:
    if type(content) not in (bytes, bytearray):  # another array's memory can be freed
        raise ValueError(f"array must be made of bytes; got {type(content).__name__}")
    return _NUMPY_FROM_BUFFER(content, dtype.dtype, *layout)


@_Maker
def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # that of bytes in old protocols
        raise ValueError(f"bytes must be in latin1; got {encoding!r:.80}")
    return text.encode(encoding)


# The qualified names that a pickle may use, and what it gets. NumPy 2 has renamed a module,
# Python 3 the builtins. torch.serialization.safe_globals takes the same as (what, name).
PLAIN_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
    "numpy.dtype": PlainDtype,
    "numpy.ndarray": PlainArray,
    **{
        f"{module}.{kind.__name__}": kind
        for module in ("builtins", "__builtin__")
        for kind in (bytearray, bytes, complex, frozenset, set)
    },
    **{
        f"numpy.{core}.{name}": made
        for core in ("core", "_core")
        for name, made in {
            "multiarray._reconstruct": PlainArray,
            "multiarray.scalar": _scalar,
            "numeric._frombuffer": _from_buffer,
        }.items()
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name not in PLAIN_GLOBALS:
            raise ValueError(
                "pickle must hold numbers, text, containers and arrays alone; "
                f"got {full_name!r:.80}"
            )
        return PLAIN_GLOBALS[full_name]


def read_plain_pickle(path: str | Path) -> Any:
    """Read a pickle of numbers, text, bytes, containers and NumPy arrays; nothing else is made.

    Args:
        path: the file; text that Python 2 wrote is read as Latin-1.

    Returns:
        Its content.

    Raises:
        ValueError: it names anything else. A file that is no pickle raises what unpicklers raise.
    """
    with Path(path).open("rb") as file:
        return _PlainUnpickler(file, encoding="latin1").load()


def refusal_reason(error: Exception) -> str:
    """The line that says why a file cannot be read, without torch's advice to read it anyway."""
    lines = [line.partition(" Please use ")[0].strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not any(map(line.count, ADVICE))]
    return lines[0] if lines else type(error).__name__
