"""The three detectors that are compared: the plain student, ours, and the textbook's.

All start with the same random weights, calibrated so that features stay of moderate size; nothing
is downloaded. Images are (3, H, W).
"""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from benchmarks.textbook import TextbookDetector, TextbookReview
from reviewkd_det.core import AUTO, ReviewDistiller
from reviewkd_det.d2.reading.images import normalize_and_pad, size_for
from reviewkd_det.d2.reading.taps import only_call, tapped
from reviewkd_det.d2.registered import build_model
from reviewkd_det.d2.teacher.source import TeacherSource, read_teacher

__all__ = [
    "Built", "Models", "build_distilled", "build_models", "find_distiller", "name_levels",
    "synthetic_batch",
]  # fmt: skip

OBJECTS = 8  # in each image
SEED = 5


@dataclass(frozen=True)
class Models:
    """What is compared; the three students have equal weights and share none.

    Args:
        plain: student by itself.
        ours: `DistilledDetector`.
        textbook: the same method, written plainly.
        loss: name of the distillation loss of ours.
    """

    plain: Any
    ours: Any
    textbook: TextbookDetector
    loss: str


class Built(NamedTuple):
    """A recipe's `DistilledDetector`, and its teacher as stock Detectron2 has it."""

    model: Any
    source: TeacherSource
    teacher: Any


def build_models(cfg: CfgNode, batch: Sequence[Mapping[str, Any]]) -> Models:
    """Build what is compared, with random weights, on `cfg.MODEL.DEVICE`, in training mode.

    The method is used alone, with its full weight from the start and unscaled teacher levels, as
    its paper has it.

    Args:
        cfg: config of the recipe.
        batch: images to calibrate with.

    Raises:
        ValueError: the config does not distil, or by no method that fuses levels.
    """
    cfg, name = _alone(cfg)
    built = build_distilled(cfg, batch)
    textbook = _textbook(cfg, built, cfg.MODEL.DISTILL[name.upper()], batch)
    plain = copy.deepcopy(built.model.student)
    return Models(plain, built.model, textbook, f"loss_{name.lower()}")


def build_distilled(
    cfg: CfgNode, batch: Sequence[Mapping[str, Any]], *, with_heads: bool = False
) -> Built:
    """Build a recipe's detector in training mode; all weights are random and calibrated.

    Args:
        cfg: config of the recipe.
        batch: images to calibrate with.
        with_heads: whether the teacher's heads have weights too, for methods that need them.

    Raises:
        ValueError: the config does not distil.
    """
    if cfg.MODEL.META_ARCHITECTURE != "DistilledDetector":
        raise ValueError(
            "MODEL.META_ARCHITECTURE must be DistilledDetector, as in a distillation recipe; got "
            f"{cfg.MODEL.META_ARCHITECTURE}"
        )
    cfg = _thawed(cfg)
    images = [x["image"] for x in batch]
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "teacher.pth")
        teacher = cfg.MODEL.DISTILL.TEACHER
        source = read_teacher(teacher.CONFIG_FILE, str(path), teacher.OPTS)
        holder: Any = source.build_detector() if with_heads else nn.Module()
        if not with_heads:
            holder.backbone = source.build_backbone()
        _calibrate(holder.backbone, images, *_pixels(source))
        torch.save({"model": holder.state_dict()}, path)
        teacher.WEIGHTS = str(path)
        model = build_model(cfg).train()
    student = model.student
    _calibrate(student.backbone, images, student.pixel_mean, student.pixel_std)
    return Built(model, source, holder.backbone)


def find_distiller(model: Any) -> ReviewDistiller:
    """The module of a `DistilledDetector` that fuses levels and compares them."""
    return next(x for x in model.methods.modules() if isinstance(x, ReviewDistiller))


@torch.no_grad()
def name_levels(model: Any, batch: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the levels that the distiller is given, from high to low resolution."""
    distiller = find_distiller(model)
    given: list[Tensor] = []
    hook = distiller.register_forward_pre_hook(lambda _, args: given.extend(args[0]))
    with tapped(model.student, ["backbone"]) as calls, EventStorage(start_iter=1):
        model(batch)
    hook.remove()
    levels = only_call(calls, "backbone").output
    return [name for level in given for name, value in levels.items() if value is level]


def _alone(cfg: CfgNode) -> tuple[CfgNode, str]:
    """The config with one method, which fuses levels as its paper has it, and its name."""
    cfg = _thawed(cfg)
    distill = cfg.MODEL.DISTILL
    names = [name for name in distill.METHODS if "FUSION" in distill.get(name.upper(), {})]
    if cfg.MODEL.META_ARCHITECTURE == "DistilledDetector" and not names:
        raise ValueError(
            "MODEL.DISTILL.METHODS must name a method that fuses levels, which the textbook has; "
            f"got {', '.join(distill.METHODS)}"
        )
    for name in names[:1]:
        settings = distill[name.upper()]
        settings.WARMUP_ITERS, settings.TEACHER_SCALE = 0, "none"
        settings.FUSION, settings.POOL_SIZES = "attention", (4, 2, 1)
        if settings.LOSS_WEIGHT == AUTO:  # which the textbook has not
            settings.LOSS_WEIGHT = 1.0
    distill.METHODS = tuple(names[:1])
    return cfg, "".join(names[:1])


def _thawed(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    return cfg


def _pixels(source: TeacherSource) -> list[Tensor]:
    """The teacher's pixel mean and standard deviation, (3, 1, 1) each."""
    return [torch.tensor(x).view(-1, 1, 1) for x in (source.pixel_mean, source.pixel_std)]


def _textbook(
    cfg: CfgNode, built: Built, settings: CfgNode, batch: Sequence[Mapping[str, Any]]
) -> TextbookDetector:
    """The textbook's detector, its student and fusions with the weights of ours."""
    device = torch.device(cfg.MODEL.DEVICE)
    distiller = find_distiller(built.model)
    names = name_levels(built.model, batch)
    review = TextbookReview(
        distiller.path.student_channels,
        distiller.teacher_channels,
        settings.MID_CHANNELS,
        norm=partial(get_norm, settings.NORM),
    ).to(device)
    review.load_state_dict(distiller.state_dict())
    mean, std = (x.to(device) for x in _pixels(built.source))
    return TextbookDetector(
        copy.deepcopy(built.model.student),
        built.teacher.to(device),
        mean,
        std,
        reverse_channels=built.source.input_format != cfg.INPUT.FORMAT,
        review=review,
        names=names,
        loss_weight=settings.LOSS_WEIGHT,
    )


@torch.no_grad()
def _calibrate(backbone: Any, images: Sequence[Tensor], mean: Tensor, std: Tensor) -> None:
    """Let each batch norm, frozen or not, divide by the root mean square of what it is given.

    With its initial statistics random weights double the variance in each block. To subtract the
    mean as well would enlarge rounding errors, of random weights, a thousandfold.
    """

    def take(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        module.get_buffer("running_mean").zero_()
        module.get_buffer("running_var").copy_(args[0].square().mean((0, 2, 3)).clamp(min=1e-2))

    layers = [
        m for m in backbone.modules() if "running_var" in dict(m.named_buffers(recurse=False))
    ]
    hooks = [layer.register_forward_pre_hook(take) for layer in layers]
    size = size_for(backbone, images[0].shape[-2:])
    was_training = backbone.training
    backbone.eval()(torch.stack([normalize_and_pad(image, mean, std, size) for image in images]))
    backbone.train(was_training)
    for hook in hooks:
        hook.remove()


def synthetic_batch(size: tuple[int, int], images: int) -> list[dict[str, Any]]:
    """Detectron2's training input: random pixels, with 8 boxes and box-shaped masks in each.

    Args:
        size: height and width, in pixels.
        images: number of images.
    """
    generator = torch.Generator().manual_seed(SEED)
    height, width = size
    extent = torch.tensor([width, height], dtype=torch.float32)
    batch = []
    for _ in range(images):
        sides = extent * (0.1 + 0.4 * torch.rand(OBJECTS, 2, generator=generator))
        corners = (extent - sides) * torch.rand(OBJECTS, 2, generator=generator)
        boxes = torch.cat([corners, corners + sides], dim=1)  # (8, 4)
        instances = Instances(size)
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.zeros(OBJECTS, dtype=torch.long)
        instances.gt_masks = PolygonMasks(
            [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()]
        )
        image = torch.randint(0, 256, (3, height, width), generator=generator)
        batch.append({"image": image.to(torch.uint8), "instances": instances})
    return batch
