from itertools import product

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from classification.data.batches import ALONE, EpochBatches, Share
from classification.data.device_loader import DeviceLoader

HEIGHT, WIDTH = 5, 7
COPIES = 20_000


def draw_images(n, height=HEIGHT, width=WIDTH):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)


def build(images, batch_size, *, training=True, seed=0, share=ALONE, micro_batches=1, **options):
    batches = EpochBatches(
        len(images),
        batch_size,
        training=training,
        seed=seed,
        share=share,
        micro_batches=micro_batches,
    )
    return DeviceLoader(images, torch.arange(len(images)), batches, **options)


def collect(loader, epoch=0, skip=0):
    """Images of an epoch in the order of their labels, which are their indices."""
    loader.set_epoch(epoch, skip)
    images, labels = map(torch.cat, zip(*loader, strict=True))
    return images[labels.argsort()]


def variants(image, padding):
    """Every crop torchvision can give, by (top, left, flip)."""
    height, width = image.shape[1:]
    padded = v2.functional.pad(image, [padding])
    crops = {}
    for top, left, flip in product(range(2 * padding + 1), range(2 * padding + 1), range(2)):
        crop = v2.functional.crop(padded, top, left, height, width)
        crops[top, left, flip] = v2.functional.horizontal_flip(crop) if flip else crop
    return crops


@pytest.fixture(scope="module")
def draws():
    """(top, left, flip) of many copies of one image in one epoch, (COPIES, 3)."""
    image = draw_images(1)[0]
    names = {crop.numpy().tobytes(): key for key, crop in variants(image, 2).items()}
    assert len(names) == 50
    loader = build(image.expand(COPIES, 3, HEIGHT, WIDTH), 500, crop_padding=2, flip=True)
    crops = collect(loader)
    return torch.tensor([names[crop.numpy().tobytes()] for crop in crops])  # no other crop


def test_every_crop_of_torchvision_appears_equally_often(draws):
    counts = torch.zeros(5, 5, 2)
    counts.index_put_(tuple(draws.T), torch.ones(COPIES), accumulate=True)
    assert (counts > 0).all()
    assert stats.chisquare(counts.flatten().numpy()).pvalue > 0.01


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_offsets_and_flip_are_independent(draws, pair):
    table = torch.zeros(5, 5 if 2 not in pair else 2)
    table.index_put_(tuple(draws[:, pair].T), torch.ones(COPIES), accumulate=True)
    assert stats.chi2_contingency(table.numpy()).pvalue > 0.01


def test_neighbours_in_the_data_are_drawn_independently(draws):
    for column, size in enumerate((5, 5, 2)):
        table = torch.zeros(size, size)
        now, after = draws[:-1, column], draws[1:, column]
        table.index_put_((now, after), torch.ones(COPIES - 1), accumulate=True)
        assert stats.chi2_contingency(table.numpy()).pvalue > 0.01


def test_the_pixels_are_distributed_as_torchvisions():
    # 4 standard errors of the difference of two means of n draws: 4 * sqrt(2 * variance / n); the
    # same for the squares. 210 pixel values, so a correct pair fails with 210 * 6e-5 = 1 %.
    image, n = draw_images(1)[0], 8000
    transform = v2.Compose([v2.RandomCrop((HEIGHT, WIDTH), padding=2), v2.RandomHorizontalFlip()])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.stack([transform(image) for _ in range(n)]).double()
    ours = collect(build(image.expand(n, -1, -1, -1), 500, crop_padding=2, flip=True)).double()
    for power in (1, 2):
        difference = (ours**power).mean(0) - (theirs**power).mean(0)
        standard_error = (2 * (theirs**power).var(0) / n).sqrt()
        assert (difference.abs() <= 4 * standard_error).all()


def test_crops_alone_are_never_flipped():
    image = draw_images(1)[0]
    crops = collect(build(image.expand(2000, -1, -1, -1), 500, crop_padding=1))
    known = {c.numpy().tobytes() for key, c in variants(image, 1).items() if not key[2]}
    assert {crop.numpy().tobytes() for crop in crops} == known


def test_without_augmentation_every_image_comes_as_it_is_with_its_label():
    images = draw_images(30)
    loader = build(images, 7, training=False)
    seen = []
    for batch, labels in loader:
        assert batch.dtype == torch.uint8
        assert labels.dtype == torch.int64
        torch.testing.assert_close(batch, images[labels])
        seen += labels.tolist()
    assert seen == list(range(30))
    assert [len(labels) for _, labels in loader] == [7, 7, 7, 7, 2]


def test_epochs_differ_and_repeat():
    loader = build(draw_images(24), 8, crop_padding=2, flip=True)
    first, second = collect(loader, 0), collect(loader, 1)
    assert not first.equal(second)
    assert first.equal(collect(loader, 0))
    assert second.equal(collect(build(draw_images(24), 8, crop_padding=2, flip=True), 1))
    assert not first.equal(collect(build(draw_images(24), 8, seed=1, crop_padding=2, flip=True)))


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_processes_see_together_what_one_sees(micro_batches):
    options = {"micro_batches": micro_batches, "crop_padding": 3, "flip": True, "seed": 4}
    images = draw_images(50)
    alone = build(images, 12, **options)
    both = [build(images, 6, share=Share(rank, 2), **options) for rank in range(2)]
    for loader in (alone, *both):
        loader.set_epoch(2)
    steps = 0
    for (batch, labels), *parts in zip(alone, *both, strict=True):
        part_images, part_labels = map(torch.cat, zip(*parts, strict=True))
        assert part_images[part_labels.argsort()].equal(batch[labels.argsort()])
        assert part_labels.sort().values.equal(labels.sort().values)
        steps += 1
    assert steps == 4 * micro_batches == len(alone) == len(both[0])
    assert alone.images_per_epoch == both[1].images_per_epoch == 48


def test_a_resumed_epoch_continues_with_the_same_images():
    loader = build(draw_images(40), 8, crop_padding=2, flip=True)
    loader.set_epoch(3)
    whole = list(loader)
    loader.set_epoch(3, skip_batches=2)
    rest = list(loader)
    torch.testing.assert_close(rest, whole[2:], rtol=0, atol=0)


def test_the_random_state_of_the_training_is_left_alone():
    before = torch.get_rng_state()
    collect(build(draw_images(24), 8, crop_padding=2, flip=True))
    assert torch.get_rng_state().equal(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_images():
    images = draw_images(24)
    options = {"crop_padding": 2, "flip": True}
    on_gpu = collect(build(images, 8, device="cuda", **options))
    assert on_gpu.is_cuda
    assert on_gpu.cpu().equal(collect(build(images, 8, **options)))


@pytest.mark.parametrize(
    "images", [torch.zeros(9, 3, 4, 4), draw_images(9)[:, :1], draw_images(9)[0]]
)
def test_other_images_are_refused(images):
    with pytest.raises(ValueError, match=r"\(n, 3, H, W\) uint8; got \(.*\) torch"):
        build(images, 1)


def test_wrong_numbers_are_refused():
    batches = EpochBatches(9, 4, training=True)
    with pytest.raises(ValueError, match="must be of the same number; got 9, 8 and 9"):
        DeviceLoader(draw_images(9), torch.arange(8), batches)
    with pytest.raises(ValueError, match="must be of the same number; got 8, 8 and 9"):
        DeviceLoader(draw_images(8), torch.arange(8), batches)
    with pytest.raises(ValueError, match=r"INPUT.CROP_PADDING must be 0 or more; got -1"):
        build(draw_images(9), 4, crop_padding=-1)
