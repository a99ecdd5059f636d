import argparse

import numpy as np
import pytest
import torch
from torch import nn

from classification.models import create_model
from classification.models.weights import load_weights, save_weights

KEY = "TEACHER.WEIGHTS"


def network(classes=5, seed=0):
    torch.manual_seed(seed)
    return create_model("resnet8", num_classes=classes)


def weights(classes=5):
    """A state dict in which every entry, the running statistics too, is told from any other."""
    torch.manual_seed(7)
    state = network(classes, seed=1).state_dict()
    return {k: torch.rand_like(v) if v.is_floating_point() else v + 9 for k, v in state.items()}


def saved(folder, content):
    torch.save(content, folder / "best.pth")
    return folder / "best.pth"


def assert_loads(path, expected):
    model = network()
    load_weights(model, path, KEY)
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key


# What training scripts write around the weights.
WRAPPED = {
    "plain": lambda state: state,
    "published": lambda state: {
        "epoch": 240,
        "model": state,
        "best_acc": torch.tensor(72.5),
        "opt": argparse.Namespace(lr=0.05, steps=[150, 180, 210], model_t=None, cosine=False),
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": []},
    },
    "lightning": lambda state: {"state_dict": state, "epoch": 3},
    "net": lambda state: {"net": state, "acc": 71.0},
    "nested": lambda state: {"model": {"state_dict": state}},
    "parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "compiled, then parallel": lambda state: {
        "model": {f"module._orig_mod.{key}": value for key, value in state.items()}
    },
    "parallel, then compiled": lambda state: {
        "model": {f"_orig_mod.module.{key}": value for key, value in state.items()}
    },
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_weights_are_found_in_what_scripts_write(wrap, tmp_path):
    assert_loads(saved(tmp_path, wrap(weights())), weights())


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.bool_])
def test_a_score_of_numpy_does_no_harm(kind, tmp_path):
    assert_loads(saved(tmp_path, {"model": weights(), "best_acc": kind(1)}), weights())


def test_files_of_old_torch_versions_load(tmp_path):
    old = {k: v for k, v in weights().items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    model = network()
    load_weights(model, tmp_path / "old.pth", KEY)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in old.items())


def test_what_is_saved_loads_again(tmp_path):
    save_weights(weights(), tmp_path / "best.pth")
    assert_loads(tmp_path / "best.pth", weights())
    content = torch.load(tmp_path / "best.pth", weights_only=True)
    assert type(content) is dict
    assert not any(value.requires_grad for value in content.values())


def refused(tmp_path, content, model=None):
    """The sentence with which a file is refused, without its path; the model stays as it was."""
    model = model or network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = saved(tmp_path, content)
    with pytest.raises(ValueError, match=f"^{KEY} must") as caught:
        load_weights(model, path, KEY)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return str(caught.value).replace(str(path), "FILE")


def test_missing_and_extra_names_are_said(tmp_path):
    state = weights()
    extra = {f"head.{i}": torch.zeros(1) for i in range(3)}
    words = f"{KEY} must hold the weights of ResNet; 'FILE'"
    fewer = {key: value for key, value in state.items() if not key.startswith("fc")}
    names = "names in the file: layer2. 18, layer3. 18, layer1. 12, bn1. 5"
    assert refused(tmp_path, fewer) == f"{words} lacks fc.weight, fc.bias; {names}, conv1. 1"
    expected = f"{words} has besides head.0, head.1, head.2; {names}, head. 3, fc. 2, conv1. 1"
    assert refused(tmp_path, state | extra) == expected
    renamed = {key.replace("layer3.", "stage3."): value for key, value in state.items()}
    # A block with a projection: 3 x (convolution, 4 of a batch norm without its count).
    assert refused(tmp_path, renamed).startswith(
        f"{words} lacks layer3.0.conv1.weight, layer3.0.bn1.weight, layer3.0.bn1.bias and 12 more; "
        "it has besides stage3.0.conv1.weight, stage3.0.bn1.weight, stage3.0.bn1.bias and 15 more; "
        "names in the file: layer2. 18, stage3. 18, "
    )


def test_another_number_of_classes_is_said(tmp_path):
    words = f"{KEY} must be for 5 classes, as the data has; got 'FILE' for 100"
    assert refused(tmp_path, {"model": weights(100)}) == words
    # A classifier that is a convolution.
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    state = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 100, 1)).state_dict()
    assert refused(tmp_path, state, model) == words


def test_other_shapes_are_said(tmp_path):
    state = weights() | {"bn1.weight": torch.ones(8), "fc.bias": torch.ones(9)}
    assert refused(tmp_path, state) == (
        f"{KEY} must hold the weights of ResNet; 'FILE' has bn1.weight (8,) instead of (16,), "
        "fc.bias (9,) instead of (5,)"
    )
    state = weights() | {"fc.weight": torch.ones(5, 32)}
    assert refused(tmp_path, state).endswith("has fc.weight (5, 32) instead of (5, 64)")


@pytest.mark.parametrize(
    "content", [[1, 2], "text", 3, None, {}, {"model": 3}, {"epoch": 1}, {"model": {"a": [1.0]}}]
)
def test_a_file_without_weights_is_refused(content, tmp_path):
    assert refused(tmp_path, content) == f"{KEY} must hold weights by name; got 'FILE' with none"
