"""Files that would run code where they were not read as data: each would make a folder `harm`."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.teacher.build import TeacherLoader
from reviewkd_det.d2.teacher.source import read_teacher
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from tests.d2 import tiny
from tests.d2.test_scripts import call

KEY = "MODEL.WEIGHTS"
TAG = "!!python/object/apply:os.mkdir [harm]"


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


def test_the_files_would_do_harm_elsewhere(tmp_path):
    torch.save({"model": Harm()}, "w.pth")
    for read in (lambda f: torch.load(f, weights_only=False), lambda _: pickle.loads(PICKLE)):
        with open("w.pth", "rb") as file:
            read(file)
        (tmp_path / "harm").rmdir()


PICKLE = pickle.dumps({"model": {"weight": Harm()}, "__author__": "zoo"})


def write_torch(path, content, **kwargs):
    torch.save(content, path, **kwargs)


def write_pickle(path, content, **kwargs):
    path.write_bytes(pickle.dumps(content, **kwargs))


def write_tar(path, content):
    """The format of the first torch versions."""
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(content, 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def array_of(thing):
    array = np.empty(1, object)
    array[0] = thing
    return array


ZOO = {"__author__": "Detectron2 Model Zoo"}
FILES = {
    "zip": ("w.pth", write_torch, {"model": {"weight": Harm()}}, {}),
    "zip, beside": ("w.pth", write_torch, {"model": {}, "optimizer": Harm()}, {}),
    "bare": ("w.pth", write_torch, {"weight": Harm()}, {}),
    "old": ("w.pth", write_torch, {"model": Harm()}, {"_use_new_zipfile_serialization": False}),
    "array": ("w.pth", write_torch, {"model": {"weight": array_of(Harm())}}, {}),
    "tar": ("w.pth", write_tar, {"model": Harm()}, {}),
    "no torch": ("w.pth", write_pickle, {"model": Harm()}, {}),
    "pycls": ("w.pyth", write_torch, {"model_state": {"weight": Harm()}}, {}),
    "zoo": ("w.pkl", write_pickle, {"model": {"weight": Harm()}, **ZOO}, {}),
    "zoo, beside": ("w.pkl", write_pickle, {"model": {}, "extra": [Harm()], **ZOO}, {}),
    "zoo, array": ("w.pkl", write_pickle, {"model": {"weight": array_of(Harm())}, **ZOO}, {}),
    "caffe2": ("w.pkl", write_pickle, {"blobs": {"conv1_w": Harm()}}, {"protocol": 2}),
    "msra": ("w.pkl", write_pickle, {"conv1_w": np.ones(3), "conv1_b": Harm()}, {"protocol": 0}),
    "alone": ("w.pkl", write_pickle, Harm(), {}),
}
REFUSED = r" must be a checkpoint that can be read; got '.*w\.\w+': \S"


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
@pytest.mark.parametrize("kind", FILES)
def test_a_checkpoint_that_calls_something_is_refused(tmp_path, monkeypatch, kind):
    # This variable lets torch run what a file says, where the caller has not decided.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    name, write, content, options = FILES[kind]
    write(tmp_path / name, content, **options)
    with pytest.raises(ValueError, match=KEY + REFUSED) as refused:
        VerifiedCheckpointer(nn.Linear(1, 1), key=KEY).load(str(tmp_path / name))
    assert "weights_only" not in str(refused.value)  # no advice to read it all the same
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["zip", "zoo", "msra"])
def test_it_is_refused_as_a_teacher_and_as_initial_weights(tmp_path, kind):
    tiny.save_teacher(tmp_path)
    model = build_model(load_config(tiny.save_student(tmp_path)))
    name, write, content, options = FILES[kind]
    write(tmp_path / name, content, **options)
    with pytest.raises(ValueError, match=KEY + REFUSED):
        StudentCheckpointer(model, key=KEY).resume_or_load(str(tmp_path / name), resume=False)
    opts = ["MODEL.DISTILL.TEACHER.WEIGHTS", str(tmp_path / name)]
    with pytest.raises(ValueError, match="MODEL.DISTILL.TEACHER.WEIGHTS" + REFUSED):
        TeacherLoader.from_config(load_config(tmp_path / "student.yaml", opts))()


def test_it_is_refused_as_a_run_to_go_on_with(tmp_path):
    torch.save({"model": {}, "trainer": Harm(), "iteration": 1}, tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    run = StudentCheckpointer(nn.Linear(1, 1), str(tmp_path), key=KEY)
    with pytest.raises(ValueError, match=r"got '.*model_final.pth', which .*mkdir"):
        run.resume_or_load("", resume=True)


def test_torchvisions_weights_in_the_cache_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"conv1.weight": Harm()}, tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    with pytest.raises(ValueError, match=r"got '.*resnet18-f37072fd.pth': .*mkdir"):
        VerifiedCheckpointer(nn.Linear(1, 1), key=KEY).load(
            "torchvision://ResNet18_Weights.IMAGENET1K_V1"
        )


def test_arrays_in_a_torch_file_cannot_be_forged(tmp_path):
    """NumPy itself would take a state by which the bytes of the file become pointers."""
    content = {"model": {"weight": np.zeros(1)}}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    good = (tmp_path / "w.pth").read_bytes()
    assert good.count(b"f8") == 1
    (tmp_path / "w.pth").write_bytes(good.replace(b"f8", b"O8"))
    with pytest.raises(ValueError, match=r"arrays of numbers alone; got one of 'O8'"):
        VerifiedCheckpointer(nn.Linear(1, 1), key=KEY).load(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04", PICKLE[:9], pickle.dumps([1, 2])])
@pytest.mark.parametrize("name", ["w.pkl", "w.pth", "w.pyth"])
def test_a_file_of_something_else_is_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=KEY + REFUSED):
        VerifiedCheckpointer(nn.Linear(1, 1), key=KEY).load(str(tmp_path / name))


@pytest.mark.parametrize("suffix", ["pth", "pyth", "pkl"])
def test_the_same_formats_with_weights_alone_are_read(tmp_path, suffix):
    model = nn.Linear(2, 1)
    state = {name: torch.full_like(value, 0.5) for name, value in model.state_dict().items()}
    arrays = {name: value.numpy() for name, value in state.items()}
    content = {"pth": {"model": arrays}, "pyth": {"model_state": state}, "pkl": arrays}[suffix]
    (write_pickle if suffix == "pkl" else write_torch)(tmp_path / f"w.{suffix}", content)
    if suffix == "pkl":
        write_pickle(tmp_path / "w.pkl", {"model": arrays, **ZOO}, protocol=2)
    VerifiedCheckpointer(model, key=KEY).load(str(tmp_path / f"w.{suffix}"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_query_other_than_the_heuristics_is_refused(tmp_path):
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "w.pth")
    VerifiedCheckpointer(nn.Linear(1, 1), key=KEY).load(
        f"{tmp_path / 'w.pth'}?matching_heuristics=True"
    )
    with pytest.raises(ValueError, match=r"only \?matching_heuristics=True may .*'unsafe'"):
        VerifiedCheckpointer(nn.Linear(1, 1), key=KEY).load(f"{tmp_path / 'w.pth'}?unsafe=True")


CONFIGS = {
    "itself": {"w.yaml": f"A: {TAG}"},
    "object": {"w.yaml": "A: !!python/object/new:os.system [mkdir harm]"},
    "module": {"w.yaml": "A: !!python/module:antigravity"},
    "name": {"w.yaml": "A: !!python/name:os.system"},
    "base": {"w.yaml": "_BASE_: b.yaml", "b.yaml": f"A: {TAG}"},
    "one of the bases": {
        "w.yaml": "_BASE_: [a.yaml, b.yaml]",
        "a.yaml": "VERSION: 2",
        "b.yaml": f"A: {TAG}",
    },
    "value": {"w.yaml": f"MODEL: {{WEIGHTS: {TAG}}}"},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_with_a_tag_is_refused(tmp_path, kind):
    for name, content in CONFIGS[kind].items():
        (tmp_path / name).write_text(content)
    words = r"config file must be plain YAML; got '.*[wb]\.yaml': .*tag:yaml.org,2002:python/"
    with pytest.raises(ValueError, match=words):
        load_config(tmp_path / "w.yaml")
    with pytest.raises(ValueError, match=words):
        read_teacher(str(tmp_path / "w.yaml"))


@pytest.mark.parametrize("script", ["train_net.py", "export_student.py", "lazyconfig_train_net.py"])
def test_a_script_refuses_a_config_with_a_tag(tmp_path, monkeypatch, capsys, script):
    (tmp_path / "config.yaml").write_text(f"A: {TAG}")
    options = ["--output", "out"] if script == "export_student.py" else []
    assert call(monkeypatch, script, "--config-file", tmp_path / "config.yaml", *options) == 1
    error = capsys.readouterr().err
    rule = "must be a Python config" if script.startswith("lazy") else "must be plain YAML"
    assert rule in error
    assert error.count("\n") == 1


PYTHON_CONFIG = """
from detectron2.config import LazyCall as L
from torch import nn
model = L(nn.Linear)(in_features=2, out_features=1)
"""


@pytest.mark.parametrize(
    "options",
    [
        ["model._target_=os.mkdir", "~model.in_features"],
        ["model={_target_: os.mkdir, path: harm}"],
        ["+model.bias={_target_: os.mkdir, path: harm}"],
        [r"model=$\{oc.create:'{_tar${oc.env:X}get_: os.mkdir}'\}"],
        ["model.bias=${oc.env:HOME}"],
    ],
)
def test_a_yaml_config_cannot_say_what_its_python_teacher_calls(tmp_path, options):
    (tmp_path / "teacher.py").write_text(PYTHON_CONFIG)
    words = r"TEACHER.OPTS must not change what a Python config calls; got .*; leave out _target_"
    with pytest.raises(ValueError, match=words):
        read_teacher(str(tmp_path / "teacher.py"), "w.pth", options)


def test_a_config_cannot_ask_for_pickled_proposals(tmp_path):
    tree = {"VERSION": 2, "MODEL": {"LOAD_PROPOSALS": True}}
    path = tiny.write(tmp_path / "w.yaml", tree)
    with pytest.raises(
        ValueError, match=r"MODEL.LOAD_PROPOSALS must be False; got True; .*pickles"
    ):
        load_config(path)
