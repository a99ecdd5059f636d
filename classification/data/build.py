"""Build the loaders of a run from its settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from classification.data.augment import (
    SMALL_AUGMENTATIONS,
    Transform,
    build_erasing,
    build_test_transform,
    build_train_transform,
)
from classification.data.batches import ALONE, EpochBatches, Share
from classification.data.check import check_source
from classification.data.device_loader import DeviceLoader
from classification.data.sources import Source, Split, load_parts
from classification.data.unlabeled import REST, add_unlabeled
from classification.data.worker_loader import WorkerLoader

__all__ = ["LOADERS", "Data", "DataSettings", "Loader", "build_loaders"]

LOADERS = ("auto", "device", "workers")
_SMALL_SOURCES = ("digits", "cifar10", "cifar100")

Loader = DeviceLoader | WorkerLoader


@dataclass(frozen=True)
class DataSettings:
    """What to train on and how to prepare it, the keys of DATA and INPUT.

    Args:
        name: name of a source of `load_source`.
        root: folder that holds the source's files.
        image_size: side of the images that leave the loaders, in pixels.
        train_images: number of training images; 0 for all.
        augmentation: name of an augmentation of `build_train_transform`.
        crop_padding: padding of `crop` and `crop_flip`, in pixels.
        loader: `device` keeps all images on the device, `workers` reads them for each batch, `auto`
            decides by name, augmentation and whether unlabelled images are files.
        workers: worker processes of `workers`, for each of the two splits.
        erasing: probability that a rectangle of a training image is painted over.
        fill: colour of that rectangle, of uint8 images.
        check: how image files are looked at before the run, as `check_source` takes it.
        run_folder: folder of the run; "" for none.
        subset_seed: seed of the choice of `train_images`.
        unlabeled: where training images without labels are, as `unlabeled_paths` gives it.
    """

    name: str
    root: str
    image_size: int
    train_images: int
    augmentation: str
    crop_padding: int
    loader: str
    workers: int
    erasing: float = 0.0
    fill: tuple[int, ...] = (0, 0, 0)
    check: str = "full"
    run_folder: str = ""
    subset_seed: int = 0
    unlabeled: tuple[str, ...] = ()


class Data(NamedTuple):
    """The loaders of both splits; iterating gives (images uint8, labels int64) on the device.

    Of the training images so many have no label, which is -1; batches are drawn from all of them.
    """

    train: Loader
    test: Loader
    class_names: tuple[str, ...]
    description: str
    unlabeled_images: int = 0

    @property
    def labeled_images(self) -> int:
        """Training images with a label."""
        return self.train.batches.length - self.unlabeled_images

    @property
    def labeled_share(self) -> float | None:
        """Part of the training images that have a label; None where all have one."""
        if not self.unlabeled_images:
            return None
        return self.labeled_images / self.train.batches.length


def build_loaders(
    settings: DataSettings,
    *,
    batch_size: int,
    eval_batch_size: int,
    micro_batches: int = 1,
    seed: int = 0,
    share: Share = ALONE,
    device: torch.device | str = "cpu",
    gather: Callable[[Any], Sequence[Any]] = lambda mine: [mine],
) -> Data:
    """Load the data, look at its image files, and build both loaders.

    Args:
        settings: the data.
        batch_size: training images of an optimiser step in this process.
        eval_batch_size: test images of a batch in this process.
        micro_batches: batches that a training step is cut into.
        seed: seed of the order and the augmentation.
        share: this process.
        device: device that takes the batches.
        gather: function that returns what every process has, in a list.

    Raises:
        KeyError: If a name is unknown.
        FileNotFoundError: If files are missing.
        ValueError: If a setting is out of range or does not fit the data or another setting, or
            image files cannot be read.
    """
    kind = _choose_loader(settings)
    source, rest = load_parts(
        settings.name,
        settings.root,
        train_images=settings.train_images,
        subset_seed=settings.subset_seed,
        with_rest=REST in settings.unlabeled,
    )
    train, unlabeled_images = add_unlabeled(source, rest, settings.unlabeled, settings.root)
    check_source(
        source._replace(train=train),
        settings.root,
        settings.check,
        folder=settings.run_folder,
        rank=share.rank,
        processes=share.world_size,
        gather=gather,
    )
    train_batches = EpochBatches(
        len(train),
        batch_size,
        training=True,
        seed=seed,
        share=share,
        micro_batches=micro_batches,
    )
    test_batches = EpochBatches(len(source.test), eval_batch_size, training=False, share=share)
    build = _build_device_loader if kind == "device" else _build_worker_loader
    return Data(
        build(settings, train, train_batches, device),
        build(settings, source.test, test_batches, device),
        source.class_names,
        _describe(settings, source, unlabeled_images, kind, device),
        unlabeled_images,
    )


def _choose_loader(settings: DataSettings) -> str:
    augmentation = settings.augmentation
    if settings.image_size < 1:
        raise ValueError(f"INPUT.SIZE must be positive; got {settings.image_size}")
    if settings.loader not in LOADERS:
        raise KeyError(f"DATA.LOADER must be one of {', '.join(LOADERS)}; got {settings.loader!r}")
    # A wrong augmentation or padding is refused here, before minutes of reading images.
    build_train_transform(augmentation, settings.image_size, settings.crop_padding)
    if settings.loader == "auto":
        in_files = settings.name not in _SMALL_SOURCES or set(settings.unlabeled) - {REST}
        return "workers" if in_files or augmentation not in SMALL_AUGMENTATIONS else "device"
    if settings.loader == "device" and augmentation not in SMALL_AUGMENTATIONS:
        raise ValueError(
            f"INPUT.AUGMENTATION must be one of {', '.join(SMALL_AUGMENTATIONS)} with DATA.LOADER "
            f"'device'; got {augmentation!r}; set DATA.LOADER to 'workers'"
        )
    return settings.loader


def _build_device_loader(
    settings: DataSettings, split: Split, batches: EpochBatches, device: torch.device | str
) -> Loader:
    crops = batches.training and settings.augmentation != "none"
    return DeviceLoader(
        split.load(settings.image_size),
        split.labels,
        batches,
        crop_padding=settings.crop_padding if crops else 0,
        flip=batches.training and settings.augmentation == "crop_flip",
        erase=_build_erasing(settings, batches),
        device=device,
    )


def _build_worker_loader(
    settings: DataSettings, split: Split, batches: EpochBatches, device: torch.device | str
) -> Loader:
    name, size = settings.augmentation, settings.image_size
    if batches.training:
        erase = _build_erasing(settings, batches)
        transform = build_train_transform(name, size, settings.crop_padding, erase)
    else:
        transform = build_test_transform(name, size)
    return WorkerLoader(split, batches, transform, workers=settings.workers, device=device)


def _build_erasing(settings: DataSettings, batches: EpochBatches) -> Transform | None:
    if not (batches.training and settings.erasing):
        return None
    return build_erasing(settings.erasing, settings.fill)


def _describe(
    settings: DataSettings,
    source: Source,
    unlabeled_images: int,
    kind: str,
    device: torch.device | str,
) -> str:
    where = f"kept on {device}" if kind == "device" else f"read by {settings.workers} workers"
    labeled = len(source.train)
    train = f"{labeled} training"
    if unlabeled_images:
        union = labeled + unlabeled_images
        train = f"{labeled} labelled and {unlabeled_images} unlabelled training ({union} an epoch)"
    return (
        f"{settings.name}: {train} and {len(source.test)} test images of "
        f"{len(source.class_names)} classes at {settings.image_size} px, {where}, "
        f"augmentation {settings.augmentation}"
    )
