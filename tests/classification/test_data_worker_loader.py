import subprocess

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from classification.data.augment import (
    AUGMENTATIONS,
    build_test_transform,
    build_train_transform,
)
from classification.data.batches import ALONE, EpochBatches, Share
from classification.data.sources import Split
from classification.data.worker_loader import WorkerLoader

SIZE = 8


def make_split(n=24, height=10, width=12):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(n))


def build(split, *, augmentation="imagenet", batch_size=6, seed=0, share=ALONE, workers=0):
    batches = EpochBatches(len(split), batch_size, training=True, seed=seed, share=share)
    transform = build_train_transform(augmentation, SIZE, 2)
    return WorkerLoader(split, batches, transform, workers=workers)


def run(loader, epoch=0, skip=0):
    loader.set_epoch(epoch, skip)
    return list(loader)


def same(first, second):
    pairs = zip(first, second, strict=True)
    return all(a.equal(b) for pair in pairs for a, b in zip(*pair, strict=True))


@pytest.fixture(scope="module")
def two_workers():
    return build(make_split(), workers=2)


def test_workers_change_nothing_in_any_epoch(two_workers):
    alone = build(make_split())
    epochs = [run(two_workers, epoch) for epoch in range(3)]
    assert all(same(epochs[epoch], run(alone, epoch)) for epoch in range(3))
    assert not same(epochs[0], epochs[1])
    assert same(epochs[0], run(two_workers, 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_continues_with_the_same_images(workers, two_workers):
    loader = two_workers if workers else build(make_split())
    assert same(run(loader, 4, skip=3), run(build(make_split()), 4)[3:])


def test_an_epoch_that_was_broken_off_leaves_no_batch_behind(two_workers):
    two_workers.set_epoch(0)
    next(iter(two_workers))
    assert same(run(two_workers, 1), run(build(make_split()), 1))


def test_processes_see_together_what_one_sees():
    alone = run(build(make_split(), batch_size=8), 2)
    both = [run(build(make_split(), batch_size=4, share=Share(rank, 2)), 2) for rank in range(2)]
    for (images, labels), *parts in zip(alone, *both, strict=True):
        part_images, part_labels = map(torch.cat, zip(*parts, strict=True))
        assert part_images[part_labels.argsort()].equal(images[labels.argsort()])


def test_workers_outlive_signals_that_are_not_from_the_training():
    before = set(psutil.Process().children())
    loader = build(make_split(), batch_size=3, workers=2)
    batches = iter(loader)
    next(batches)
    workers = set(psutil.Process().children()) - before
    assert len(workers) == 2
    # From another process, as a terminal or a cluster sends them.
    for name in ("-INT", "-TERM"):
        subprocess.run(["kill", name, *(str(worker.pid) for worker in workers)], check=True)
    assert len(list(batches)) == 7
    for worker in workers:
        worker.terminate()  # from this process
    assert not psutil.wait_procs(workers, timeout=10)[1]


def test_seed_and_epoch_change_the_draws_of_each_image():
    def by_label(seed, epoch):
        images, labels = map(
            torch.cat, zip(*run(build(make_split(), seed=seed), epoch), strict=True)
        )
        return images[labels.argsort()]

    first = by_label(0, 0)
    for other in (by_label(1, 0), by_label(0, 1)):
        equal = (first == other).flatten(1).all(dim=1)
        assert equal.sum() < 4  # by chance


def test_each_image_gets_its_own_draw():
    split = Split(make_split(1).images.expand(24, -1, -1, -1), torch.zeros(24))
    images = torch.cat([images for images, _ in run(build(split))])
    assert len(images.unique(dim=0)) > 20


def test_the_random_state_of_the_training_is_left_alone(two_workers):
    before = torch.get_rng_state()
    run(build(make_split(), augmentation="autoaugment"))
    run(two_workers)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("kind", ["tensor", "files"])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_batches_are_uint8_of_the_size_with_their_labels(augmentation, kind, tmp_path):
    split = make_split(6)
    if kind == "files":
        paths = [str(tmp_path / f"{i}.png") for i in range(6)]
        for path, image in zip(paths, split.images, strict=True):
            transforms.to_pil_image(image).save(path)
        split = Split(tuple(paths), split.labels)
    loader = build(split, augmentation=augmentation, batch_size=3)
    batches = run(loader)
    assert len(batches) == len(loader) == 2
    assert loader.images_per_epoch == 6
    for images, labels in batches:
        assert (images.shape, images.dtype) == ((3, 3, SIZE, SIZE), torch.uint8)
        assert (labels.shape, labels.dtype) == ((3,), torch.int64)
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(6))


@pytest.mark.parametrize(("augmentation", "count"), [("none", 1), ("crop", 25), ("crop_flip", 50)])
def test_small_augmentations_give_their_crops_and_nothing_else(augmentation, count):
    image = make_split(1, SIZE, SIZE).images[0]
    padded = transforms.pad(image, [2])
    crops = padded.unfold(1, SIZE, 1).unfold(2, SIZE, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    known = {
        "none": image[None],
        "crop": crops,
        "crop_flip": torch.cat([crops, crops.flip(3)]),
    }[augmentation]
    split = Split(image.expand(800, -1, -1, -1), torch.zeros(800))
    images = torch.cat([images for images, _ in run(build(split, augmentation=augmentation))])
    found = images.unique(dim=0)
    assert len(found) == count
    assert found.equal(known.unique(dim=0))


def test_autoaugment_does_more_than_crop_and_flip():
    flat = torch.full((50, 3, SIZE, SIZE), 100, dtype=torch.uint8)
    split = Split(flat, torch.zeros(50))
    plain, augmented = (
        torch.cat([images for images, _ in run(build(split, augmentation=augmentation))])
        for augmentation in ("imagenet", "autoaugment")
    )
    assert (plain == 100).all()
    assert len(augmented.unique()) > 5


@pytest.mark.parametrize(("augmentation", "edge"), [("imagenet", 256), ("crop_flip", 224)])
def test_a_test_picture_is_resized_and_its_centre_cut_out(augmentation, edge):
    rows = np.linspace(0, 255, 512).astype(np.uint8)[:, None, None]
    picture = Image.fromarray(np.broadcast_to(rows, (512, 600, 3)).copy())
    image = build_test_transform(augmentation, 224)(picture)
    assert image.shape == (3, 224, 224)
    cut = (edge - 224) / 2 / edge * 255  # brightness that is lost at each end
    assert image[0, 0].float().mean().item() == pytest.approx(cut, abs=1.5)
    assert image[0, -1].float().mean().item() == pytest.approx(255 - cut, abs=1.5)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_test_picture_of_the_size_is_left_alone(augmentation):
    image = make_split(1, SIZE, SIZE).images[0]
    assert build_test_transform(augmentation, SIZE)(image).equal(image)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_is_one_sentence_with_its_name(workers, tmp_path):
    (tmp_path / "no_image.png").write_bytes(b"nothing")
    split = Split((str(tmp_path / "no_image.png"),), torch.zeros(1))
    # From a worker, DataLoader puts the worker's traceback before it.
    words = r"(?m)^(ValueError: )?image file must be readable; .*no_image.png'.*\n?\Z"
    with pytest.raises(ValueError, match=words):
        run(build(split, batch_size=1, workers=workers))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_files_of_a_batch_are_named(batch):
    paths = tuple(f"{number}.png" for number in range(15))
    split = Split(paths, torch.arange(15))
    loader = build(split, batch_size=5, workers=0)
    loader.set_epoch(7)
    first, second, third, *_ = [paths[index] for index in list(loader.batches)[batch - 1].tolist()]
    text = f", whose images are '{first}', '{second}', '{third}' and 2 more"
    assert loader.describe_batch(7, batch) == text
    assert build(make_split()).describe_batch(7, batch) == ""


def test_wrong_arguments_are_refused():
    with pytest.raises(KeyError, match="crop_flip, imagenet, autoaugment; got 'mixup'"):
        build_train_transform("mixup", SIZE, 2)
    with pytest.raises(ValueError, match=r"INPUT.CROP_PADDING must be 0 or more; got -2"):
        build_train_transform("crop", SIZE, -2)
    with pytest.raises(ValueError, match=r"DATA.WORKERS must be 0 or more; got -1"):
        build(make_split(), workers=-1)
    with pytest.raises(ValueError, match="must be of the 24 images; got batches of 9"):
        WorkerLoader(make_split(), EpochBatches(9, 3, training=True), lambda picture: picture)
