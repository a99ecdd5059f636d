"""Files that would run code where they were not read as data: each would make a folder `harm`."""

import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.nn import Linear
from torchvision.datasets import CIFAR10, CIFAR100

from classification.config import load_config
from classification.data.sources import load_source
from classification.models.libraries import create_torchvision_model
from classification.models.weights import load_weights
from classification.runs.states import States
from tests.classification.running import save_as_folder, sign, train


class Harm:
    """Makes the folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path, monkeypatch):
    """Check that the folder was never made."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "harm").exists()


def array_of(thing):
    array = np.empty(1, object)
    array[0] = thing
    return array


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    "content", [{"model": Harm()}, {"state_dict": {}, "opt": [Harm()]}, {"a": array_of(Harm())}]
)
def test_weights_that_call_something_are_refused(tmp_path, monkeypatch, content, is_zip):
    # This variable lets torch run what a file says, where the caller has not decided.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)
    words = r"^TEACHER.WEIGHTS must be a checkpoint that can be read; got '.*w.pth': \S"
    with pytest.raises(ValueError, match=words) as refused:
        load_weights(Linear(1, 1), tmp_path / "w.pth", "TEACHER.WEIGHTS")
    assert "weights_only" not in str(refused.value)


def test_arrays_of_objects_are_refused(tmp_path):
    torch.save({"model": Linear(1, 1).state_dict(), "scores": array_of(1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"arrays of numbers alone; got one of 'O8'"):
        load_weights(Linear(1, 1), tmp_path / "w.pth", "TEACHER.WEIGHTS")


def test_scores_and_arrays_beside_the_weights_are_no_obstacle(tmp_path):
    model = Linear(2, 1)
    extra = {"top1": np.float64(71.5), "epoch": np.int64(3), "curve": np.arange(4.0)}
    torch.save({"model": {k: v + 1 for k, v in model.state_dict().items()}, **extra}, "w.pth")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_weights(model, tmp_path / "w.pth", "TEACHER.WEIGHTS")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] + 1)


@pytest.mark.parametrize("dataset", [CIFAR10, CIFAR100])
def test_a_cifar_file_of_another_content_is_not_unpickled(tmp_path, dataset):
    folder = tmp_path / dataset.base_folder
    folder.mkdir()
    names = [name for name, _ in [*dataset.train_list, *dataset.test_list]]
    for name in [*names, dataset.meta["filename"]]:
        (folder / name).write_bytes(pickle.dumps({"data": Harm(), "labels": []}))
    with pytest.raises(ValueError, match=rf"got a damaged '.*{names[0]}'; extract it again"):
        load_source(dataset.__name__.lower(), str(tmp_path))


@pytest.mark.parametrize("content", ["A: {tag}", "_BASE_: b.yaml", "MODEL: {{NAME: {tag}}}"])
def test_a_config_with_a_tag_is_refused(tmp_path, content):
    tag = "!!python/object/apply:os.mkdir [harm]"
    (tmp_path / "w.yaml").write_text(content.format(tag=tag))
    (tmp_path / "b.yaml").write_text(f"A: {tag}")
    words = r"config file must be plain YAML; got '.*[wb]\.yaml': .*tag:yaml.org,2002:python/"
    with pytest.raises(ValueError, match=words):
        load_config(tmp_path / "w.yaml")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(States, "save", save_as_folder)
        train(folder, "SOLVER.EPOCHS", 1)
    return folder


def plant(run, tmp_path, name):
    """Copy a run, put a hostile file into its last state, and sign it as part of that."""
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    (state,) = (folder / "state").iterdir()
    if name == "pytorch_model.bin":  # is read where the other is absent
        (state / "model.safetensors").unlink()
    torch.save({"state": Harm(), "step": Harm()}, state / name)
    sign(state)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "model.safetensors",
        "optimizer.bin",
        "custom_checkpoint_0.pkl",
        "random_states_0.pkl",
    ],
)
def test_a_state_with_a_hostile_file_is_not_gone_on_from(run, tmp_path, name):
    folder = plant(run, tmp_path, name)
    with pytest.raises(ValueError, match=r"state must be .*; got '.*epoch_00001': \S"):
        train(folder, "SOLVER.EPOCHS", 2, resume=True)


def test_torchvisions_weights_in_the_cache_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"conv1.weight": Harm()}, tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    with pytest.raises(
        ValueError, match=r"torchvision/resnet18 DEFAULT must be plain data; got .*"
    ):
        create_torchvision_model("resnet18", num_classes=10, weights="DEFAULT")
