"""Checkpoint files, random and mutated: each is loaded, or refused with one sentence."""

import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from classification.models.weights import load_weights
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from tests.bulk.mutations import changed, damaged, names, values
from tests.bulk.outcomes import counts, in_bulk, outcome


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 2, 1), norm=nn.BatchNorm2d(2), fc=nn.Conv2d(2, 4, 1))
    )


def load_detection(model, path):
    VerifiedCheckpointer(model, key="MODEL.WEIGHTS").load(str(path))


def load_classification(model, path):
    load_weights(model, path, "TEACHER.WEIGHTS")


LOADERS = {"detection": load_detection, "classification": load_classification}


def saved(content, *, is_zip=True):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=is_zip)
    return file.getvalue()


def arrays(content):
    return {name: value.numpy() for name, value in content.items()}


STATE = dict(build().state_dict())
TREE = {"model": STATE, "optimizer": {"lr": 0.1, "steps": [1, 2]}, "iteration": 3}
# What people have: ending, and the bytes of a file that loads.
FILES = {
    "zip": ("pth", saved(TREE)),
    "old torch": ("pth", saved(TREE, is_zip=False)),
    "Detectron2": ("pkl", pickle.dumps({"model": arrays(STATE), "__author__": "me"})),
    "pycls": ("pyth", saved({"model_state": STATE})),
}
tensors = st.builds(
    lambda shape, dtype: torch.zeros(shape, dtype=dtype),
    st.lists(st.integers(0, 5), max_size=5),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool]),
) | st.just(np.zeros((2, 3)))
contents = st.one_of(
    changed(TREE),
    changed(STATE),
    st.dictionaries(st.sampled_from(sorted(STATE)) | names, tensors | values, max_size=9).map(
        lambda state: {"model": {**STATE, **state}}
    ),
    values,
    tensors,
)


def as_pickle(tree):
    """Detectron2's format of a tree that may lack its parts."""
    state = tree["model"] if isinstance(tree, dict) and "model" in tree else tree
    if isinstance(state, dict):
        state = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
    return pickle.dumps({"model": state, "__author__": "me"})


def cases(kind):
    """Pairs of a file's ending and its bytes."""
    if kind in FILES:
        ending, content = FILES[kind]
        return st.tuples(st.just(ending), damaged(content))
    if kind == "trees":
        return st.tuples(st.just("pth"), contents.map(saved)) | st.tuples(
            st.just("pkl"), contents.map(as_pickle)
        )
    return st.tuples(st.sampled_from(["pth", "pkl", "pyth"]), st.binary(max_size=300))


def check_model(model):
    """The model is whole: its shapes and types are as before, and it computes."""
    state = model.state_dict()
    assert state.keys() == STATE.keys()
    for name, value in state.items():
        assert (value.shape, value.dtype) == (STATE[name].shape, STATE[name].dtype)
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, 2, 2)).shape == (1, 4, 2, 2)


@pytest.mark.parametrize("package", LOADERS)
@pytest.mark.parametrize("kind", [*FILES, "trees", "random"])
@counts(full=250, fast=30)
def test_a_checkpoint_is_loaded_or_refused(tmp_path, kind, package, count):
    def judge(case):
        ending, content = case
        path = tmp_path / f"weights.{ending}"
        path.write_bytes(content)
        model = build()
        result = outcome(lambda: LOADERS[package](model, path), tmp_path)
        if result == "accepted":
            check_model(model)
        return result

    assert in_bulk(count, cases(kind), judge)["refused"]


@pytest.mark.parametrize("kind", FILES)
def test_the_undamaged_file_is_loaded(tmp_path, kind):
    ending, content = FILES[kind]
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(content)
    model = build()
    nn.init.zeros_(model.fc.weight)
    load_detection(model, path)
    assert torch.equal(model.fc.weight, STATE["fc.weight"])
    if ending == "pth":
        load_classification(model, path)


def test_what_is_no_weight_counts_as_missing(tmp_path):
    torch.save({"model": {**STATE, "conv.bias": [1, 2]}}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS must hold every .* missing 1: conv.bias"):
        load_detection(build(), tmp_path / "weights.pth")
