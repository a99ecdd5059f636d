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
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from torch import Tensor, nn

from benchmarks.textbook import TextbookDetector, TextbookReview
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.reading.images import normalize_and_pad, size_for
from reviewkd_det.d2.teacher.source import TeacherSource, read_teacher

__all__ = ["Models", "build_models", "synthetic_batch"]

OBJECTS = 8  # in each image
SEED = 5


@dataclass(frozen=True)
class Models:
    """What is compared; the three students have equal weights and share none."""

    plain: Any
    ours: Any  # a DistilledDetector
    textbook: TextbookDetector


def build_models(cfg: CfgNode, batch: Sequence[Mapping[str, Any]]) -> Models:
    """Build what a recipe compares, with random weights, on `cfg.MODEL.DEVICE`, in training mode.

    ReviewKD is used alone, with its full weight from the start and unscaled teacher levels, as the
    paper has it.

    Args:
        cfg: the recipe's config.
        batch: images to calibrate with.

    Raises:
        ValueError: the config does not distil.
    """
    if cfg.MODEL.META_ARCHITECTURE != "DistilledDetector":
        raise ValueError(
            "MODEL.META_ARCHITECTURE must be DistilledDetector, as in a distillation recipe; got "
            f"{cfg.MODEL.META_ARCHITECTURE}"
        )
    cfg, settings = _alone(cfg)
    images = [x["image"] for x in batch]
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "teacher.pth")
        teacher = settings.TEACHER
        source = read_teacher(teacher.CONFIG_FILE, str(path), teacher.OPTS)
        holder = nn.Module()
        holder.backbone = source.build_backbone()
        mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (source.pixel_mean, source.pixel_std))
        _calibrate(holder.backbone, images, mean, std)
        torch.save({"model": holder.state_dict()}, path)
        teacher.WEIGHTS = str(path)
        ours = build_model(cfg).train()
    student = ours.student
    _calibrate(student.backbone, images, student.pixel_mean, student.pixel_std)
    textbook = _textbook(cfg, ours, source, holder.backbone)
    return Models(copy.deepcopy(student), ours, textbook)


def _alone(cfg: CfgNode) -> tuple[CfgNode, CfgNode]:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DISTILL.METHODS = ("ReviewKD",)
    cfg.MODEL.DISTILL.REVIEWKD.WARMUP_ITERS = 0
    cfg.MODEL.DISTILL.REVIEWKD.TEACHER_SCALE = "none"
    cfg.MODEL.DISTILL.REVIEWKD.FUSION = "attention"
    cfg.MODEL.DISTILL.REVIEWKD.POOL_SIZES = (4, 2, 1)
    return cfg, cfg.MODEL.DISTILL


def _textbook(
    cfg: CfgNode, ours: DistilledDetector, source: TeacherSource, backbone: Any
) -> TextbookDetector:
    """The textbook's detector, its student and fusions with the weights of ours."""
    device = torch.device(cfg.MODEL.DEVICE)
    settings = cfg.MODEL.DISTILL.REVIEWKD
    method: Any = ours.methods["ReviewKD"]
    student_channels, teacher_channels = (
        [model.output_shape()[name].channels for name in method.in_features]
        for model in (ours.student.backbone, backbone)
    )
    review = TextbookReview(
        student_channels,
        teacher_channels,
        settings.MID_CHANNELS,
        norm=partial(get_norm, settings.NORM),
    ).to(device)
    review.load_state_dict(method.distiller.state_dict())
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (source.pixel_mean, source.pixel_std))
    return TextbookDetector(
        copy.deepcopy(ours.student),
        backbone.to(device),
        mean.to(device),
        std.to(device),
        reverse_channels=source.input_format != cfg.INPUT.FORMAT,
        review=review,
        names=method.in_features,
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
        size: (H, W).
        images: how many.
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
