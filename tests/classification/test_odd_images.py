"""Unusual images go through both loaders, a step of a distilled classifier and a test of it, or
are refused by name."""

import numpy as np
import pytest
import torch
from PIL import Image

from classification.data import DataSettings, build_loaders
from tests.classification import distilling

SIDE = 16
RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8))
GREY_16 = Image.fromarray(RNG.integers(0, 65536, (20, 30), dtype=np.uint16))
SIDEWAYS = Image.Exif()
SIDEWAYS[274] = 6
# Ending, picture, and what it is saved with.
PICTURES = {
    "usual": ("png", RGB, {}),
    "1 x 2000 pixels": ("png", RGB.resize((2000, 1)), {}),
    "2000 x 1 pixels": ("png", RGB.resize((1, 2000)), {}),
    "1 pixel": ("png", RGB.resize((1, 1)), {}),
    "black and white": ("png", RGB.convert("1"), {}),
    "grey": ("png", RGB.convert("L"), {}),
    "grey with alpha": ("png", RGB.convert("LA"), {}),
    "alpha": ("png", RGB.convert("RGBA"), {}),
    "palette with alpha": ("png", RGB.convert("P"), {"transparency": bytes(range(256))}),
    "16 bits": ("png", GREY_16, {}),
    "16 bits in TIFF": ("tif", GREY_16, {}),
    "CMYK": ("jpg", RGB.convert("CMYK"), {}),
    "turned": ("jpg", RGB, {"exif": SIDEWAYS}),
}


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    return distilling.build(distilling.config(tmp_path_factory.mktemp("odd_images")))


def write(folder, picture, ending, options):
    """An image folder of two classes, of which one holds the odd picture."""
    for split in ("train", "val"):
        for name in ("odd", "usual"):
            (folder / split / name).mkdir(parents=True)
        picture.save(folder / split / "odd" / f"a.{ending}", **options)
        RGB.save(folder / split / "usual" / "a.png")


def loaders(folder, loader):
    augmentation = "crop_flip" if loader == "device" else "imagenet"
    settings = DataSettings("image_folder", str(folder), SIDE, 0, augmentation, 2, loader, 0)
    return build_loaders(settings, batch_size=2, eval_batch_size=2)


@pytest.mark.parametrize("loader", ["device", "workers"])
@pytest.mark.parametrize("kind", PICTURES)
def test_an_odd_image_trains_and_is_tested(tmp_path, kind, loader, distilled):
    ending, picture, options = PICTURES[kind]
    write(tmp_path, picture, ending, options)
    data = loaders(tmp_path, loader)
    classifier, student = distilled
    data.train.set_epoch(0)
    ((images, labels),) = data.train
    assert sorted(labels.tolist()) == [0, 1]
    losses = classifier.train()(images, labels, 1)
    classifier.zero_grad()
    sum(losses.values()).backward()
    assert "loss_reviewkd" in losses
    gradients = [p.grad for p in classifier.parameters() if p.grad is not None]
    assert gradients
    assert all(x.isfinite().all() for x in (*losses.values(), *gradients))
    ((images, labels),) = data.test
    assert images.shape == (2, 3, SIDE, SIDE)
    with torch.no_grad():
        assert student.eval()(images / 255).isfinite().all()


@pytest.mark.parametrize("loader", ["device", "workers"])
@pytest.mark.parametrize("damage", ["no image", "truncated"])
def test_what_cannot_be_read_is_refused_by_name(tmp_path, damage, loader):
    write(tmp_path, RGB, "png", {})
    path = tmp_path / "train" / "odd" / "a.png"
    content = path.read_bytes()
    path.write_bytes(b"hello" if damage == "no image" else content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"got 1 of 4 that are not: '.*/odd/a\.png' \("):
        list(loaders(tmp_path, loader).train)
