"""A student and a teacher before the first batch, and what they give for one."""

import torch

from reviewkd_det.core import Branch, Level, Need, Side, Truth, View

CLASSES = 5
IMAGES = 3
STUDENT = ((4, (8, 12)), (6, (4, 6)))  # channels and size of each level
SAME_SIZES = ((7, (8, 12)), (5, (4, 6)))
SMALLER = ((7, (4, 6)), (5, (2, 3)))
SAME = STUDENT
VECTOR, BOTTLENECK = 9, 6  # features of a row, student's and teacher's
SHARED = 3  # channels of the map that peers begin with
IMAGE_SIZE = (32, 48)  # pixels
BRANCH_SIZES = ((3, 4), (2, 2))  # of the maps of a dense head
BOXES = [[[3.0, 2.0, 20.0, 17.0], [10.0, 9.0, 44.0, 30.0]], [], [[0.0, 0.0, 48.0, 32.0]]]


def side(levels):
    """What is known of a network with these levels."""
    names = ("fine", "coarse")
    return Side(
        tuple(
            Level(n, c, size, norm=((1.0,) * c, (0.5,) * c))
            for n, (c, size) in zip(names, levels, strict=True)
        ),
        CLASSES,
        vector=width(levels),
        branch=levels[0][0],
        peers=(Side(classes=CLASSES, vector=VECTOR),) * 2,
        shared=SHARED,
    )


def width(levels):
    """Features of a row: of the student's levels as many as those of its own."""
    return VECTOR if levels is STUDENT else BOTTLENECK


def view(levels, seed, *, scale=1.0, dtype=torch.float32):
    """Random levels and logits."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (scale * torch.randn(*shape, generator=generator)).to(dtype)

    maps = [draw(IMAGES, channels, *size) for channels, size in levels]
    rows = draw(IMAGES, CLASSES), draw(IMAGES, width(levels)), draw(IMAGES, 3, 4, 5)
    regressed = draw(IMAGES, 4), draw(IMAGES, 5, 6), draw(IMAGES), draw(IMAGES, 4)
    branches = [
        branch([draw(IMAGES, levels[0][0], *size) for size in BRANCH_SIZES], outputs)
        for outputs in (CLASSES, 4)
    ]
    peers = [View(logits=draw(IMAGES, CLASSES), vector=draw(IMAGES, VECTOR)) for _ in range(2)]
    shared = draw(IMAGES, SHARED, 2, 2)
    return View(maps, *rows, *regressed, *branches, peers=peers, shared=shared)


def branch(maps, outputs):
    """Half of a dense head, whose last layer is fixed: rows of logits, or of boxes."""

    def finish(maps):
        rows = torch.cat([x.relu().flatten(2).transpose(1, 2) for x in maps], dim=1)
        weight = torch.linspace(-1, 1, outputs * rows.shape[2], dtype=rows.dtype)
        rows = rows @ weight.view(rows.shape[2], outputs)  # (N, R, outputs)
        if outputs != 4:
            return rows
        corner, size = rows[..., :2], rows[..., 2:].clamp(-3, 3).exp()
        return torch.cat([corner, corner + size], dim=2)

    return Branch(maps, finish)


def changed(view, function):
    """The view with each of its tensors changed."""

    def change(value):
        if isinstance(value, Branch):
            return Branch([function(x) for x in value.maps], value.finish)
        if isinstance(value, View):
            return changed(value, function)
        if isinstance(value, list | tuple):
            return [change(x) for x in value]
        return None if value is None else function(value)

    return View(*(change(value) for value in view))


def part(view, images):
    """The view of some of the images, in an order."""
    return changed(view, lambda x: x[images])


def truth(images=(0, 1, 2)):
    """What is known of the images."""
    boxes = [torch.tensor(BOXES[i]).reshape(-1, 4) for i in images]
    images = torch.tensor(images)
    coded = torch.tensor([[0.1, -0.4, 0.3, 0.8], [-1.5, 0.0, 0.7, -0.2], [0.5, 0.9, -1.1, 0.4]])
    target = torch.tensor([4, 0, 2])[images]
    return Truth(target, boxes, IMAGE_SIZE, images, coded[images], len(images))


def make(method, student=STUDENT, teacher=SAME_SIZES, seed=0, **settings):
    """A method with its default settings but for those given, of the weights of a seed."""
    if "levels" in {**method.Settings().__dict__}:
        settings.setdefault("levels", (0, 1))
    torch.manual_seed(seed)
    built = method(method.Settings(**settings), side(student), side(teacher))
    if Need.SAMPLE in method.needs:
        built.meet_samples(torch.tensor([4, 0, 2, 2, 0, 1, 3, 4, 4]))
    return built


def run(built, *inputs):
    """The parts of a loss, drawn from the same random numbers."""
    torch.manual_seed(4)
    return built(*inputs)


def total(parts):
    """The loss of a method."""
    return torch.stack(list(parts.values())).sum()
