"""Pickles that are read as data, and hostile ones: each would make a folder named `harm`."""

import builtins
import codecs
import functools
import operator
import os
import pickle
import struct
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from reviewkd_det.common.weights.plain_pickle import (
    PLAIN_GLOBALS,
    read_plain_pickle,
    refusal_reason,
)

NUMPY_MODULES = [b"numpy._core", b"numpy.core"]  # of NumPy 2 and 1


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path, monkeypatch):
    """No test leaves the folder that its pickle would make."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "harm").exists()


def read(content):
    with open("file.pkl", "wb") as file:
        file.write(content)
    return read_plain_pickle("file.pkl")


def text(word):
    """The opcode of a short text."""
    return b"\x8c" + struct.pack("B", len(word.encode())) + word.encode()


def named(name):
    """The opcodes of a global."""
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


ARRAYS = {
    "float": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20)[::3],
    "big endian": np.arange(5, dtype=">i4"),
    "bytes": np.frombuffer(bytes(range(256)) * 9, np.uint8),
    "half": np.float16([1.5, -2]),
    "bool": np.array([[True], [False]]),
    "complex": np.array([1 + 2j]),
    "empty": np.zeros((0, 3)),
    "none": np.array(3, np.int64),
}


@pytest.mark.parametrize("module", NUMPY_MODULES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_in_every_protocol(protocol, module):
    content = {
        "model": OrderedDict(ARRAYS),
        "numbers": [1, -(2**70), 1.5, True, None, 2j],
        "text": ("ä", b"\xff\x00", b"", bytearray(b"ab")),
        "sets": {frozenset({1}), "a"},
        "scalars": [np.float32(0.1), np.int64(-3), np.bool_(True)],
    }
    dumped = pickle.dumps(content, protocol)
    found = read(dumped.replace(b"numpy._core", module) if protocol < 4 else dumped)
    assert type(found["model"]) is OrderedDict
    for name, array in ARRAYS.items():
        twin = found["model"][name]
        assert isinstance(twin, np.ndarray)
        assert (twin.dtype.newbyteorder("="), twin.shape) == (
            array.dtype.newbyteorder("="),
            array.shape,
        )
        np.testing.assert_array_equal(twin, array)
    for key in ("numbers", "text", "sets", "scalars"):
        assert found[key] == content[key]
    assert [type(x) for x in found["scalars"]] == [type(x) for x in content["scalars"]]


def test_text_and_arrays_of_python_2_are_read():
    array = np.arange(300, dtype="<f4")
    raw = array.tobytes()
    content = (
        b"\x80\x02}(U\x06conv1_"  # a str, which Python 3 no longer writes
        + named("numpy.core.multiarray._reconstruct") + named("numpy.ndarray")
        + b"K\x00\x85U\x01b\x87R(K\x01M" + struct.pack("<H", 300) + b"\x85"
        + named("numpy.dtype") + b"U\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        + b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
        + b"U\x04name" + b"U\x02\xe9\xe8" + b"u."
    )  # fmt: skip
    found = read(content)
    np.testing.assert_array_equal(found["conv1_"], array)
    assert found["name"] == "éè"


def test_what_is_read_can_be_written_to():
    found = read(pickle.dumps({"a": ARRAYS["float"], "b": ARRAYS["big endian"]}))
    for array in found.values():
        array += 1
    np.testing.assert_array_equal(found["a"], ARRAYS["float"] + 1)


class Call:
    """Is pickled as a call."""

    def __init__(self, function, *args):
        self.made = (function, args)

    def __reduce__(self):
        return self.made


class Own:
    """A class of whoever wrote the pickle."""

    def __setstate__(self, state):
        os.mkdir("harm")

    def __getstate__(self):
        return {"a": 1}


GADGETS = {
    "mkdir": Call(os.mkdir, "harm"),
    "system": Call(os.system, "mkdir harm"),
    "eval": Call(eval, "__import__('os').mkdir('harm')"),
    "exec": Call(exec, "import os; os.mkdir('harm')"),
    "import": Call(__import__, "antigravity"),
    "getattr": Call(getattr, "", "upper"),
    "attrgetter": Call(operator.attrgetter, "mkdir"),
    "methodcaller": Call(operator.methodcaller, "mkdir", "harm"),
    "partial": Call(functools.partial, os.mkdir, "harm"),
    "map": Call(map, os.mkdir, ["harm"]),
    "open": Call(builtins.open, "harm", "w"),
    "decode": Call(codecs.decode, b"harm", "utf-8"),
    "load": Call(np.load, "file.npy"),
    "frombuffer": Call(np.frombuffer, b"12345678"),
    "memmap": Call(np.memmap, "harm", "u1", "w+", 0, (1,)),
    "loads": Call(pickle.loads, b"."),
    "setstate": Own(),
    "defaultdict": defaultdict(list, a=[1]),
    "function": np.zeros,
    "class": dict,
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("gadget", GADGETS)
@pytest.mark.parametrize("place", ["alone", "value", "array"])
def test_anything_else_is_refused_by_name_and_not_run(gadget, protocol, place):
    content = GADGETS[gadget]
    if place != "alone":
        content = {"model": {"w": np.zeros(2)}, "a": content}
    if place == "array":
        holder = np.empty(1, object)
        holder[0] = GADGETS[gadget]
        content["a"] = holder
    words = r"pickle must hold numbers, text, containers and arrays alone; got '[\w.]+'$"
    if place == "array":
        words += "|pickle must hold arrays of numbers alone; got one of 'O8'"
    with pytest.raises(ValueError, match=words):
        read(pickle.dumps(content, protocol))


@pytest.mark.parametrize(
    "name",
    [
        "numpy.core.multiarray.fromfile",
        "numpy.lib.npyio.load",
        "numpy.f2py.compile",
        "numpy.core._internal._ctypes",
        "numpy.testing._private.utils.runstring",
        "collections.namedtuple",
        "_codecs.lookup",
        "_codecs.decode",
        "builtins.getattr",
        "__builtin__.eval",
        "builtins.object",
        "copy_reg._reconstructor",
        "copyreg.__newobj__",
        "reviewkd_det.common.weights.plain_pickle.PLAIN_GLOBALS",
        "torch._utils._rebuild_tensor_v2",
        "torch.load",
    ],
)
def test_a_name_beside_the_admitted_ones_is_refused(name):
    with pytest.raises(ValueError, match=rf"alone; got '{name}'"):
        read(b"\x80\x02" + named(name) + b".")
    module, _, attribute = name.rpartition(".")
    with pytest.raises(ValueError, match=rf"alone; got '{name}'"):
        read(b"\x80\x04" + text(module) + text(attribute) + b"\x93.")


def test_attributes_of_what_is_admitted_are_refused():
    for path in ("set.__init__.__globals__", "OrderedDict.fromkeys.__class__"):
        with pytest.raises(ValueError, match=f"got 'collections.{path}'"):
            read(b"\x80\x04" + text("collections") + text(path) + b"\x93.")


def test_a_name_cannot_write_on_the_terminal():
    with pytest.raises(ValueError, match=r"got '\\x1b\[31m\\na\.b'$"):
        read(b"\x80\x04" + text("\x1b[31m\na") + text("b") + b"\x93.")


DTYPE = named("numpy.dtype")


@pytest.mark.parametrize("code", ["O", "O8", "V8", "S4", "U1", "M8[s]", "f4,O", "(2,)f4", "T"])
def test_arrays_of_anything_but_numbers_are_refused(code):
    with pytest.raises(ValueError, match=r"arrays of numbers alone; got one of '"):
        read(b"\x80\x04" + DTYPE + text(code) + b"\x89\x88\x87R.")


@pytest.mark.parametrize("flags", [0, 63])
def test_a_number_cannot_be_declared_to_be_something_else(flags):
    """A state with fields of objects, over bytes, would make pointers of the file's numbers."""
    fields = b"}" + text("a") + DTYPE + text("f8") + b"\x89\x88\x87RK\x00\x86s"
    state = b"(K\x03" + text("<") + b"N" + text("a") + b"\x85" + fields
    state += b"K\x08K\x01K" + struct.pack("B", flags) + b"t"
    forged = DTYPE + text("f8") + b"\x89\x88\x87R" + state + b"b"
    before = np.dtype("f8").flags
    array = read(
        b"\x80\x04" + named("numpy.core.multiarray._reconstruct") + named("numpy.ndarray")
        + b"K\x00\x85C\x01b\x87R(K\x01K\x01\x85" + forged + b"\x89C\x08" + b"A" * 8 + b"tb."
    )  # fmt: skip
    assert array.dtype == np.float64
    assert array.dtype.names is None
    assert array.tobytes() == b"A" * 8
    assert np.dtype("f8").flags == before


def test_an_array_is_made_of_bytes_and_not_of_anothers_memory():
    array = pickle.dumps(np.zeros(2), 4)[2:-1]
    layout = DTYPE + text("u1") + b"\x89\x88\x87RK\x10\x85" + text("C")
    for core in ("core", "_core"):
        make = named(f"numpy.{core}.numeric._frombuffer")
        with pytest.raises(ValueError, match=r"array must be made of bytes; got PlainArray"):
            read(b"\x80\x04" + make + b"(" + array + layout + b"tR.")


def test_an_array_that_is_longer_than_its_bytes_is_refused():
    dumped = pickle.dumps(np.zeros(4, np.uint8), 4)
    with pytest.raises(ValueError, match=r"buffer|bytes|size|length"):
        read(dumped.replace(b"K\x04\x85", b"K\x44\x85"))


def test_bytes_are_decoded_with_latin1_alone():
    call = named("_codecs.encode")
    assert read(b"\x80\x04" + call + text("é") + text("latin1") + b"\x86R.") == b"\xe9"
    for encoding in ("rot13", "zlib", "utf-8"):
        with pytest.raises(ValueError, match=f"bytes must be in latin1; got '{encoding}'"):
            read(b"\x80\x04" + call + text("a") + text(encoding) + b"\x86R.")


@pytest.mark.parametrize("name", sorted(PLAIN_GLOBALS))
def test_a_pickle_cannot_alter_what_later_ones_get(name):
    """BUILD sets attributes of whatever is on the stack, of a plain function what it calls."""
    admitted = PLAIN_GLOBALS[name]
    for attribute in ("__setstate__", "__new__", "__init__", "__call__", "_make", "__defaults__"):
        before = getattr(admitted, attribute, None)
        attributes = b"}" + text(attribute) + text("changed") + b"s"
        for state in (attributes, b"N" + attributes + b"\x86"):
            with pytest.raises((AttributeError, TypeError, ValueError)):
                read(b"\x80\x04" + named(name) + state + b"b.")
        assert getattr(admitted, attribute, None) == before


def test_a_function_says_that_it_is_not_altered():
    with pytest.raises(ValueError, match=r"pickle must not alter functions; got \{'a': 'b'\}"):
        read(b"\x80\x04" + named("_codecs.encode") + b"}" + text("a") + text("b") + b"sb.")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x80\x04", b"\x80\x04\x82\x01.", b"\x80\x04Q."]
)
def test_what_is_no_pickle_is_refused(content):
    with pytest.raises((EOFError, ValueError, IndexError, pickle.UnpicklingError)):
        read(content)


@pytest.mark.parametrize("module", NUMPY_MODULES)
def test_names_of_numpy_1_and_2_are_the_same(module):
    twin = {k: v for k, v in PLAIN_GLOBALS.items() if k.startswith(module.decode())}
    assert {k.rpartition(".")[2] for k in twin} == {"_reconstruct", "scalar", "_frombuffer"}


def test_the_reason_leaves_out_how_to_switch_the_check_off():
    torchs = (
        "Weights only load failed. Set `weights_only` to False.\n\n  Unsupported os.mkdir.\nMore."
    )
    assert refusal_reason(ValueError(torchs)) == "Unsupported os.mkdir."
    assert refusal_reason(EOFError()) == "EOFError"
