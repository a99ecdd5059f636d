"""A teacher: the parts of any Detectron2 detector that methods need, verified and frozen."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from reviewkd_det.core import FrozenTeacher, Need
from reviewkd_det.d2.teacher.backbone import PRECISIONS, TeacherBackbone
from reviewkd_det.d2.teacher.cache import LevelCache
from reviewkd_det.d2.teacher.classes import class_order
from reviewkd_det.d2.teacher.folding import fold_batch_norms
from reviewkd_det.d2.teacher.heads import HEADS, TeacherHeads, build_heads
from reviewkd_det.d2.teacher.precision import AUTO_PRECISION, choose_precision
from reviewkd_det.d2.teacher.source import read_teacher

__all__ = ["TeacherLoader", "other_teachers", "teacher_state"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherLoader:
    """Builds, loads, verifies and freezes a teacher, its batch norms folded.

    Args:
        config_file: config of the teacher, a path or a model-zoo name.
        weights: checkpoint of the teacher; "" takes its config's own.
        opts: changes to the teacher's config.
        student_format: channel order of the student's images, RGB or BGR.
        precision: precision of the teacher's backbone, float32, bfloat16 or float16, or auto, see
            `choose_precision`.
        compile_backbone: whether its backbone runs through torch.compile, where it can be.
        class_order: the teacher's class number for each of the student's; empty where they are
            the same.
        weights_entry: entry or prefix of the checkpoint that is taken; "" finds it.
        device: where it is to run, for a precision of auto.
        cache: GB of levels that are remembered; 0 for none.

    Raises:
        ValueError: the precision is unknown, or the cache is negative.
    """

    config_file: str
    weights: str = ""
    opts: Sequence[str] = ()
    student_format: str = "BGR"
    precision: str = "float32"
    compile_backbone: bool = False
    class_order: Sequence[int] = ()
    weights_entry: str = ""
    device: str = "cpu"
    cache: float = 0.0

    def __post_init__(self) -> None:
        known = (*PRECISIONS, AUTO_PRECISION)
        if self.precision not in known:
            raise ValueError(
                f"MODEL.DISTILL.TEACHER.PRECISION must be one of {', '.join(known)}; "
                f"got {self.precision!r}"
            )
        if not self.cache >= 0:
            raise ValueError(f"MODEL.DISTILL.TEACHER.CACHE must not be negative; got {self.cache}")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "TeacherLoader":
        """Read `MODEL.DISTILL.TEACHER` of a student's config."""
        settings = cfg.MODEL.DISTILL.TEACHER
        if settings.CACHE and cfg.INPUT.CROP.ENABLED:
            logger.warning(
                "MODEL.DISTILL.TEACHER.CACHE answers hardly anything with INPUT.CROP.ENABLED True, "
                "which shows each image anew"
            )
        return cls(
            settings.CONFIG_FILE,
            settings.WEIGHTS,
            settings.OPTS,
            student_format=cfg.INPUT.FORMAT,
            precision=settings.PRECISION,
            compile_backbone=settings.COMPILE,
            class_order=class_order(cfg),
            weights_entry=settings.WEIGHTS_ENTRY,
            device=cfg.MODEL.DEVICE,
            cache=settings.CACHE,
        )

    def __call__(self, needs: Need = Need.LEVELS) -> FrozenTeacher:
        """Build the parts that methods need; the backbone always.

        Args:
            needs: what the methods need together.

        Returns:
            A frozen `TeacherBackbone`, on the CPU.

        Raises:
            FileNotFoundError: the teacher's config or checkpoint does not exist.
            ValueError: no checkpoint is named, it cannot be read or lacks weights, a part is not of
                the needed kind, or the student's images cannot be turned into the teacher's.
        """
        source = read_teacher(self.config_file, self.weights, self.opts, self.weights_entry)
        heads = TeacherHeads()
        if needs & HEADS:
            source.require_detector(f"methods on {(needs & HEADS).words}")
            detector = source.build_detector()
            backbone, heads = detector.backbone, build_heads(detector, needs)
        else:
            backbone = source.build_backbone()
        source.load_weights(_tree({"backbone": backbone, **heads.named_parts()}))
        if self.class_order:
            heads.take_classes(self.class_order)
        fold_batch_norms(backbone.eval())
        teacher = TeacherBackbone(
            backbone,
            source.pixel_mean,
            source.pixel_std,
            reverse_channels=_is_reversed(self.student_format, source.input_format),
            heads=heads,
            precision=PRECISIONS.get(self.precision, torch.float32),
            compile_backbone=self.compile_backbone,
        )
        if self.precision == AUTO_PRECISION:
            teacher.convert(choose_precision(teacher, self.device))
        if self.cache:
            teacher.cache = LevelCache(self.cache)
        return FrozenTeacher(teacher)


def other_teachers(cfg: CfgNode) -> list[CfgNode]:
    """For each further teacher the student's config with that one as its teacher.

    Raises:
        ValueError: one is no pair of a config and a checkpoint.
    """
    configs = []
    for pair in cfg.MODEL.DISTILL.TEACHER.OTHERS:
        if len(pair) != 2 or not all(isinstance(x, str) for x in pair) or not pair[0]:
            raise ValueError(
                f"MODEL.DISTILL.TEACHER.OTHERS must hold [config, checkpoint] of each; got {pair!r}"
            )
        other = cfg.clone()
        other.defrost()
        other.MODEL.DISTILL.TEACHER.merge_from_list(
            ["CONFIG_FILE", pair[0], "WEIGHTS", pair[1], "WEIGHTS_ENTRY", "", "OPTS", []]
        )
        configs.append(other)
    return configs


def teacher_state(cfg: CfgNode) -> dict[str, Tensor]:
    """The state dict of the whole teacher that `cfg.MODEL.DISTILL.TEACHER` names, verified."""
    settings = cfg.MODEL.DISTILL.TEACHER
    source = read_teacher(
        settings.CONFIG_FILE, settings.WEIGHTS, settings.OPTS, settings.WEIGHTS_ENTRY
    )
    return source.load_state()


def _tree(parts: Mapping[str, nn.Module]) -> nn.Module:
    """A module with these modules at their dotted names."""
    root = nn.Module()
    for name, part in parts.items():
        *path, last = name.split(".")
        owner = root
        for step in path:
            if not hasattr(owner, step):
                owner.add_module(step, nn.Module())
            owner = owner.get_submodule(step)
        owner.add_module(last, part)
    return root


def _is_reversed(student_format: str, teacher_format: str) -> bool:
    if student_format == teacher_format:
        return False
    if {student_format, teacher_format} == {"RGB", "BGR"}:
        return True
    raise ValueError(
        "INPUT.FORMAT of student and teacher must be equal, or RGB and BGR; "
        f"got {student_format} and {teacher_format}"
    )
