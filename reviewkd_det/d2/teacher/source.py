"""Where a teacher comes from: a Detectron2 config, YAML or Python, and a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    build_backbone,
    build_model,
    build_roi_heads,
)
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from omegaconf import OmegaConf
from torch import Tensor

from reviewkd_det.d2.config import find_teacher_config, load_config, plain_config
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer

__all__ = ["WEIGHTS_KEY", "TeacherSource", "read_teacher"]

WEIGHTS_KEY = "MODEL.DISTILL.TEACHER.WEIGHTS"
OPTS_KEY = "MODEL.DISTILL.TEACHER.OPTS"


@dataclass(frozen=True)
class TeacherSource:
    """How to build a teacher or its parts, all on the CPU, and how it sees images."""

    weights: str
    input_format: str
    pixel_mean: Sequence[float]  # of each channel in that order, in pixel values
    pixel_std: Sequence[float]
    build_detector: Callable[[], Any]
    build_backbone: Callable[[], Any]
    build_roi_heads: Callable[[Any], Any]  # from the backbone
    is_one_stage: bool = False

    def load_state(self) -> dict[str, Tensor]:
        """The state dict of the whole teacher, verified."""
        detector = self.build_detector()
        VerifiedCheckpointer(detector, key=WEIGHTS_KEY, prefix="teacher.").load(self.weights)
        return detector.state_dict()


def read_teacher(config_file: str, weights: str = "", opts: Sequence[str] = ()) -> TeacherSource:
    """Read a teacher's config.

    Args:
        config_file: a path or a model-zoo name; a `.py` file is a LazyConfig with a `model`.
        weights: the checkpoint; "" takes the config's own.
        opts: KEY VALUE pairs for YAML, `path.key=value` for a LazyConfig.

    Raises:
        FileNotFoundError: nothing has that name.
        ValueError: no checkpoint is named anywhere, or an option changes what a LazyConfig calls.
    """
    path = find_teacher_config(config_file)
    source = (_read_python if path.suffix == ".py" else _read_yaml)(path, weights, opts)
    if not source.weights:
        raise ValueError(
            f"{WEIGHTS_KEY} must name the teacher's checkpoint; got '', and its config "
            f"'{config_file}' names none either"
        )
    return source


def _read_yaml(path: Path, weights: str, opts: Sequence[str]) -> TeacherSource:
    cfg = plain_config(load_config(path, opts, OPTS_KEY))
    cfg.MODEL.DEVICE = "cpu"
    return TeacherSource(
        weights=weights or cfg.MODEL.WEIGHTS,
        input_format=cfg.INPUT.FORMAT,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        build_detector=lambda: build_model(cfg),
        build_backbone=lambda: build_backbone(cfg),
        build_roi_heads=lambda backbone: build_roi_heads(cfg, backbone.output_shape()),
        is_one_stage=_is_one_stage(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)),
    )


def _read_python(path: Path, weights: str, opts: Sequence[str]) -> TeacherSource:
    for option in opts:  # from a YAML file, that is data: it may not say what to call
        if "_target_" in str(option) or "$" in str(option):
            raise ValueError(
                f"{OPTS_KEY} must not change what a Python config calls; got {option}; "
                "leave out _target_ and $"
            )
    cfg = LazyConfig.apply_overrides(LazyConfig.load(str(path)), list(opts))
    if "model" not in cfg:
        raise ValueError(f"a LazyConfig of a teacher must have a 'model'; got '{path}' without")
    model = cfg.model.student if "student" in cfg.model else cfg.model
    detector = instantiate(model)
    trained_on = OmegaConf.select(cfg, "dataloader.train.mapper.image_format")
    return TeacherSource(
        weights=weights or cfg.get("train", {}).get("init_checkpoint", ""),
        # Detectron2's default, where neither the data nor the model says otherwise, is BGR.
        input_format=trained_on or getattr(detector, "input_format", None) or "BGR",
        pixel_mean=detector.pixel_mean.flatten().tolist(),
        pixel_std=detector.pixel_std.flatten().tolist(),
        build_detector=lambda: detector,
        build_backbone=lambda: detector.backbone,
        build_roi_heads=lambda backbone: getattr(detector, "roi_heads", None),
        is_one_stage=_is_one_stage(type(detector)),
    )


def _is_one_stage(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, DenseDetector)
