"""A student of a backbone alone: pre-training by a teacher's levels, without labels or losses."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList
from torch import Tensor, nn

from reviewkd_det.core import AUTO

__all__ = ["BackboneOnly", "is_backbone_only"]


@META_ARCH_REGISTRY.register()
class BackboneOnly(nn.Module):
    """A detector's backbone with its pyramid, and no head.

    As `MODEL.DISTILL.STUDENT_META_ARCHITECTURE` it is trained by the methods alone, on images that
    need no labels. The names of its weights are those of a detector with this backbone, whose
    training then starts from them: `MODEL.WEIGHTS`.

    Args:
        backbone: backbone that is trained.
        pixel_mean: mean of each channel, in pixel values.
        pixel_std: standard deviation of each channel, in pixel values.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(self, *, backbone: Backbone, pixel_mean: Any, pixel_std: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read what is built from a config."""
        return {
            "backbone": build_backbone(cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """The device that images are moved to."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Run the backbone; there are no losses of its own.

        Args:
            batched_inputs: Detectron2's standard input, of which the images are used.

        Raises:
            RuntimeError: it is asked to detect.
        """
        if not self.training:
            raise RuntimeError("a backbone alone detects nothing: leave DATASETS.TEST empty")
        images = [
            (x["image"].to(self.device) - self.pixel_mean) / self.pixel_std for x in batched_inputs
        ]
        batch = ImageList.from_tensors(
            images,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )
        self.backbone(batch.tensor)
        return {}


def is_backbone_only(cfg: CfgNode) -> bool:
    """Whether a config trains a backbone alone, without labels.

    Raises:
        ValueError: there is no method to train it by, it is to be evaluated, or it is to be given
            labels.
    """
    if cfg.MODEL.META_ARCHITECTURE == "DistilledDetector":
        name = cfg.MODEL.DISTILL.STUDENT_META_ARCHITECTURE
    else:
        name = cfg.MODEL.META_ARCHITECTURE
    if name != BackboneOnly.__name__:
        return False
    if name == cfg.MODEL.META_ARCHITECTURE or not cfg.MODEL.DISTILL.METHODS:
        raise ValueError(
            f"MODEL.DISTILL.METHODS must name what trains a {name}, as the student of "
            f"MODEL.META_ARCHITECTURE DistilledDetector; got {cfg.MODEL.META_ARCHITECTURE} with "
            f"{tuple(cfg.MODEL.DISTILL.METHODS)}"
        )
    if cfg.DATASETS.TEST:
        raise ValueError(
            f"DATASETS.TEST must be () for a {name}, which detects nothing; got "
            f"{tuple(cfg.DATASETS.TEST)}"
        )
    if cfg.MODEL.DISTILL.TEACHER_LABELS.ENABLED:
        raise ValueError(
            f"MODEL.DISTILL.TEACHER_LABELS.ENABLED must be False for a {name}, which has no head "
            "that learns labels; got True"
        )
    several = len(cfg.MODEL.DISTILL.METHODS) > 1
    for method in cfg.MODEL.DISTILL.METHODS:
        key, node = f"MODEL.DISTILL.{method.upper()}", cfg.MODEL.DISTILL.get(method.upper(), {})
        why = f"for a {name}, which has no losses of its own"
        if several and node.get("LOSS_WEIGHT") == AUTO:
            raise ValueError(
                f"{key}.LOSS_WEIGHT must be a number beside other methods {why}; got auto"
            )
        for word in ("DECAY_ITERS", "DECAY_SHARE"):
            if node.get(word) not in (0, AUTO):
                raise ValueError(f"{key}.{word} must be 0 {why}; got {node[word]}")
    return True
