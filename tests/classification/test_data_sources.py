import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from classification.data.sources import Split, balanced_order, load_source

FILES = {"cifar10": ["data_batch_1", "data_batch_2", "test_batch"], "cifar100": ["train", "test"]}
DATASETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def write_folder(root, counts):
    """Make the images `<split>/<class>/<number>.png` of a dictionary of counts."""
    for position, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            image = Image.new("RGB", (6, 4), (position, number, 0))
            image.save(root / folder / f"{number}.png")
    return str(root)


@pytest.fixture
def folder(tmp_path):
    counts = {"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 2}
    return write_folder(tmp_path, counts)


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch):
    """Two images in each file, with any checksum; (name, root, images as (n, 3, 32, 32))."""
    name, dataset = request.param, DATASETS[request.param]
    *train_files, test_file = FILES[name]
    monkeypatch.setattr(dataset, "train_list", [[file, None] for file in train_files])
    monkeypatch.setattr(dataset, "test_list", [[test_file, None]])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": None})
    folder = tmp_path / dataset.base_folder
    folder.mkdir()
    images = np.random.default_rng(0).integers(256, size=(6, 3, 32, 32), dtype=np.uint8)
    key = "labels" if name == "cifar10" else "fine_labels"
    for number, file in enumerate(FILES[name]):
        data = images[2 * number : 2 * number + 2].reshape(2, -1)
        content = pickle.dumps({"data": data, key: [number, number + 1]})
        (folder / file).write_bytes(content)
    names = {dataset.meta["key"]: ["a", "b", "c", "d"]}
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(names))
    return name, str(tmp_path), torch.from_numpy(images)


def test_digits_are_split_evenly_and_without_overlap():
    train, test, class_names = load_source("digits", "")
    assert class_names == tuple("0123456789")
    assert (len(train), len(test)) == (1297, 500)
    assert test.labels.bincount().tolist() == [50] * 10
    everything = {image.numpy().tobytes() for image in torch.cat([train.images, test.images])}
    assert len(everything) == 1797  # no two digits are the same, so none is in both
    assert train.images.max() == 255
    assert train.images.shape[1:] == (3, 8, 8)
    again = load_source("digits", "")
    assert again.train.images.equal(train.images)
    assert again.test.labels.equal(test.labels)


def test_digits_have_scikit_learns_labels_and_brightness():
    from sklearn.datasets import load_digits

    digits = load_digits()
    pairs = zip(digits.images, digits.target.tolist(), strict=True)
    known = {tuple(ink.flatten().tolist()): label for ink, label in pairs}
    test = load_source("digits", "").test
    for image, label in zip(test.images, test.labels.tolist(), strict=True):
        grey = image.double().unique(dim=0)
        assert len(grey) == 1
        ink = tuple((grey * 16 / 255).round().flatten().tolist())
        assert known[ink] == label


def test_digits_need_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"'digits' must .*; got no scikit-learn; pip"):
        load_source("digits", "")


def test_cifar_images_and_labels_are_those_of_the_files(cifar):
    name, root, images = cifar
    source = load_source(name, root)
    assert source.train.images.equal(images[: 2 * len(FILES[name]) - 2])
    assert source.test.images.equal(images[2 * len(FILES[name]) - 2 : 2 * len(FILES[name])])
    assert source.train.labels.tolist() == [0, 1, 1, 2][: len(source.train)]
    assert source.train.labels.dtype == torch.int64
    assert source.class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_missing_cifar_folder_is_named(name, tmp_path):
    folder, archive = DATASETS[name].base_folder, DATASETS[name].filename
    sentence = rf"DATA.ROOT must hold {folder}/ .*{archive}.*; got '.*', which lacks {folder}$"
    with pytest.raises(FileNotFoundError, match=sentence):
        load_source(name, str(tmp_path))


def test_a_missing_cifar_file_is_named(cifar, tmp_path):
    name, root, _ = cifar
    (tmp_path / DATASETS[name].base_folder / FILES[name][-1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"which lacks .*{FILES[name][-1]}$"):
        load_source(name, root)


def test_a_damaged_cifar_file_is_named(cifar, monkeypatch):
    name, root, _ = cifar
    damaged = FILES[name][-1]
    monkeypatch.setattr(DATASETS[name], "test_list", [[damaged, "0" * 32]])
    with pytest.raises(ValueError, match=f"got a damaged '.*{damaged}'; extract it again"):
        load_source(name, root)


def test_a_folder_gives_its_images_with_their_classes(folder):
    train, test, class_names = load_source("image_folder", folder)
    assert class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert test.labels.tolist() == [0, 1, 1]
    assert [train.open(i).getpixel((0, 0)) for i in (2, 4)] == [(0, 2, 0), (1, 1, 0)]
    loaded = test.load(4)
    assert loaded.shape == (3, 3, 4, 4)
    assert loaded[:, :2, 0, 0].tolist() == [[2, 0], [3, 0], [3, 1]]


def test_test_is_used_when_there_is_no_val_and_hidden_things_are_left_out(tmp_path):
    counts = {"train/a": 1, "test/a": 2, "train/.cache": 1, "test/a/.thumbnails": 0}
    root = write_folder(tmp_path, counts)
    (tmp_path / "test" / "a" / "._0.png").write_bytes(b"")
    (tmp_path / "test" / "a" / "notes.txt").write_text("")
    source = load_source("image_folder", root)
    assert source.class_names == ("a",)
    assert len(source.test) == 2
    write_folder(tmp_path / "val", {"a": 3})
    assert len(load_source("image_folder", root).test) == 3


@pytest.mark.parametrize(
    ("counts", "error", "sentence"),
    [
        ({"val/a": 1}, FileNotFoundError, "must hold train/<class>/ and .*lacks .*train$"),
        ({"train/a": 1}, FileNotFoundError, "which lacks .*val and .*test$"),
        ({"train": 0, "val/a": 1}, ValueError, "train' must hold a folder for each class; got non"),
        (
            {"train/a": 1, "train/b": 1, "val/a": 1, "val/c": 1},
            ValueError,
            "same classes; got 'b' only in '.*train' and 'c' only in '.*val'$",
        ),
        (
            {**{f"train/{n}": 1 for n in "abcdef"}, "val/a": 1},
            ValueError,
            "got 'b', 'c', 'd' and 2 more only in '.*train'$",
        ),
        (
            {"train/a": 1, "train/b": 0, "val/a": 1, "val/b": 1},
            ValueError,
            "every class folder of '.*train' must hold an image; got none in 'b'; endings are .jpg",
        ),
    ],
)
def test_a_folder_with_a_fault_is_refused(tmp_path, counts, error, sentence):
    with pytest.raises(error, match=sentence):
        load_source("image_folder", write_folder(tmp_path, counts))


def test_an_unknown_name_is_refused():
    with pytest.raises(KeyError, match="one of digits, cifar10, cifar100, image_folder; got 'mni"):
        load_source("mnist", "")


def test_fewer_training_images_are_balanced_subsets():
    smaller, larger = (load_source("digits", "", train_images=n).train for n in (25, 100))
    assert sorted(smaller.labels.bincount().tolist()) == [2] * 5 + [3] * 5
    assert larger.labels.bincount().tolist() == [10] * 10
    assert smaller.images.equal(larger.images[:25])
    assert len(load_source("digits", "", train_images=1297).train) == 1297


def test_fewer_files_keep_their_labels(folder):
    train = load_source("image_folder", folder, train_images=2).train
    assert sorted(train.labels.tolist()) == [0, 1]
    for index in range(2):
        assert train.open(index).getpixel((0, 0))[0] == train.labels[index]


@pytest.mark.parametrize("number", [-1, 6])
def test_a_wrong_number_of_training_images_is_refused(folder, number):
    with pytest.raises(ValueError, match=rf"TRAIN_IMAGES must be 0 \(all\) to 5; got {number}"):
        load_source("image_folder", folder, train_images=number)


def test_the_classes_take_turns_until_one_has_run_out():
    labels = torch.tensor([0] * 10 + [1] * 3 + [2] * 6)
    order = balanced_order(labels)
    assert sorted(order.tolist()) == list(range(19))
    turns = labels[order]
    assert all(set(turns[i : i + 3].tolist()) == {0, 1, 2} for i in (0, 3, 6))
    assert all(set(turns[i : i + 2].tolist()) == {0, 2} for i in (9, 11, 13))
    assert not balanced_order(labels, seed=1).equal(order)


def test_images_in_memory_are_resized_in_their_order():
    images = torch.arange(2500).remainder(251).byte()[:, None, None, None].expand(-1, 3, 2, 3)
    loaded = Split(images, torch.zeros(2500)).load(4)
    assert loaded.equal(images[..., :1, :1].expand(-1, 3, 4, 4))
