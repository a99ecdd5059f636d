"""A student and a teacher before the first batch, and what they give for one."""

import torch

from reviewkd_det.core import Level, Side, Truth, View

CLASSES = 5
IMAGES = 3
STUDENT = ((4, (8, 12)), (6, (4, 6)))  # channels and size of each level
SAME_SIZES = ((7, (8, 12)), (5, (4, 6)))
SMALLER = ((7, (4, 6)), (5, (2, 3)))
SAME = STUDENT


def side(levels):
    """What is known of a network with these levels."""
    names = ("fine", "coarse")
    return Side(
        tuple(Level(n, c, size) for n, (c, size) in zip(names, levels, strict=True)), CLASSES
    )


def view(levels, seed, *, scale=1.0, dtype=torch.float32):
    """Random levels and logits."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (scale * torch.randn(*shape, generator=generator)).to(dtype)

    maps = [draw(IMAGES, channels, *size) for channels, size in levels]
    return View(maps, draw(IMAGES, CLASSES))


def truth():
    """The classes of the images."""
    return Truth(torch.tensor([4, 0, 2]))


def make(method, student=STUDENT, teacher=SAME_SIZES, **settings):
    """A method with its default settings but for those given, always of the same weights."""
    if "levels" in {**method.Settings().__dict__}:
        settings.setdefault("levels", (0, 1))
    torch.manual_seed(0)
    return method(method.Settings(**settings), side(student), side(teacher))


def total(parts):
    """The loss of a method."""
    return torch.stack(list(parts.values())).sum()
