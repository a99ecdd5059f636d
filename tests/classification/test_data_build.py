from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2.functional import to_pil_image

from classification.data import (
    DataSettings,
    DeviceLoader,
    Share,
    WorkerLoader,
    build_loaders,
    load_source,
)
from classification.data.batches import ALONE

SETTINGS = DataSettings(
    name="digits",
    root="",
    image_size=9,
    train_images=200,
    augmentation="crop_flip",
    crop_padding=2,
    loader="auto",
    workers=0,
)


def build(seed=0, share=ALONE, batch_size=20, micro_batches=1, **changes):
    return build_loaders(
        replace(SETTINGS, **changes),
        batch_size=batch_size,
        eval_batch_size=64,
        micro_batches=micro_batches,
        seed=seed,
        share=share,
    )


@pytest.mark.parametrize("loader", ["device", "workers"])
def test_both_loaders_give_the_same_interface(loader):
    data = build(loader=loader)
    assert data.class_names == tuple("0123456789")
    assert (len(data.train), len(data.test)) == (10, 8)
    assert (data.train.images_per_epoch, data.test.images_per_epoch) == (200, 500)
    for split in (data.train, data.test):
        split.set_epoch(1)
        images, labels = next(iter(split))
        assert (images.shape[1:], images.dtype) == ((3, 9, 9), torch.uint8)
        assert (labels.shape, labels.dtype) == (images.shape[:1], torch.int64)


def test_both_loaders_give_the_same_test_images_in_order():
    on_device, by_workers = (build(loader=loader).test for loader in ("device", "workers"))
    for ours, theirs in zip(on_device, by_workers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    test = load_source("digits", "").test
    images, labels = map(torch.cat, zip(*on_device, strict=True))
    assert images.equal(test.load(9))
    assert labels.equal(test.labels)


def test_both_loaders_give_the_same_order_of_training_images():
    orders = [
        torch.cat([labels for _, labels in build(loader=loader, seed=3).train])
        for loader in ("device", "workers")
    ]
    assert orders[0].equal(orders[1])


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, DeviceLoader),
        ({"augmentation": "none"}, DeviceLoader),
        ({"augmentation": "imagenet"}, WorkerLoader),
        ({"loader": "workers"}, WorkerLoader),
    ],
)
def test_auto_chooses_by_the_augmentation(changes, kind):
    data = build(**changes)
    assert type(data.train) is type(data.test) is kind


def test_auto_reads_a_folder_with_workers_unless_told_otherwise(tmp_path):
    source = load_source("digits", "")
    for split in ("train", "val"):
        for label in "01":
            (tmp_path / split / label).mkdir(parents=True)
            to_pil_image(source.train.images[0]).save(tmp_path / split / label / "0.png")
    folder = {"name": "image_folder", "root": str(tmp_path), "train_images": 0, "batch_size": 2}
    assert type(build(**folder).train) is WorkerLoader
    assert type(build(**folder, loader="device").train) is DeviceLoader


def first_images(**changes):
    return next(iter(build(**changes).train))[0]


@pytest.mark.parametrize("loader", ["device", "workers"])
@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 10},
        {"train_images": 0},
        {"augmentation": "none"},
        {"augmentation": "crop"},
        {"crop_padding": 3},
        {"seed": 1},
        {"share": Share(1, 2)},
        {"batch_size": 10},
        {"micro_batches": 2},
    ],
)
def test_every_setting_changes_the_images(loader, change):
    assert not first_images(loader=loader).equal(first_images(loader=loader, **change))


@pytest.mark.parametrize("loader", ["device", "workers"])
def test_the_crop_has_black_borders_and_none_has_not(loader):
    def bright(augmentation):
        data = build(loader=loader, augmentation=augmentation, train_images=0)
        return torch.cat([images for images, _ in data.train]).double().mean().item()

    assert bright("crop") < 0.97 * bright("none")  # zeros replace part of the picture
    assert bright("crop_flip") == pytest.approx(bright("crop"), rel=0.05)


def test_the_description_says_what_was_loaded():
    assert build().description == (
        "digits: 200 training and 500 test images of 10 classes at 9 px, kept on cpu, "
        "augmentation crop_flip"
    )
    assert "read by 0 workers, augmentation autoaugment" in (
        build(augmentation="autoaugment").description
    )


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"name": "mnist"}, KeyError, "DATA.NAME must be one of digits, .*; got 'mnist'"),
        (
            {"loader": "gpu"},
            KeyError,
            "must be one of auto, device, workers; got 'gpu'",
        ),
        ({"augmentation": "cut"}, KeyError, "INPUT.AUGMENTATION must be .*; got 'cut'"),
        ({"image_size": 0}, ValueError, "INPUT.SIZE must be positive; got 0"),
        ({"crop_padding": -1}, ValueError, "INPUT.CROP_PADDING must be 0 or more; got -1"),
        ({"train_images": 1298}, ValueError, "DATA.TRAIN_IMAGES must be .* 1297; got 1298"),
        ({"batch_size": 201}, ValueError, "at most the 200 training images; got 201"),
        (
            {"loader": "device", "augmentation": "imagenet"},
            ValueError,
            "must be one of none, crop, crop_flip with DATA.LOADER 'device'; got 'imagenet'",
        ),
        ({"loader": "workers", "workers": -1}, ValueError, "DATA.WORKERS must be .*; got -1"),
    ],
)
def test_wrong_settings_are_refused(changes, error, sentence):
    with pytest.raises(error, match=sentence):
        build(**changes)
