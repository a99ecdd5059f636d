"""What is trained: a student, its teachers, the networks beside it, and methods between them."""

import logging
from collections.abc import Mapping, Sequence

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from classification.build import needs_of_teacher
from classification.config_checks import AVERAGE, plan_config, taught
from classification.distilled import DistilledClassifier
from classification.networks import build_model, build_teacher, reuse_classifier
from classification.peers import PastNetworks, build_peers, find_shared
from classification.reading.levels import choose_taps, describe_levels
from classification.reading.preprocess import build_preprocess
from classification.reading.taps import TappedModel
from classification.several import SeveralTeachers, teacher_configs
from reviewkd_det.common.distill.build import MethodPlan, build_methods, needs_of
from reviewkd_det.common.tracing.stages import find_vector
from reviewkd_det.core import FrozenTeacher, Need

__all__ = ["build_classifier"]

logger = logging.getLogger(__name__)


def build_classifier(
    cfg: CfgNode,
    num_classes: int,
    *,
    labeled_share: float | None = None,
    samples: Tensor | None = None,
) -> tuple[DistilledClassifier, nn.Module]:
    """Build what is trained.

    The student comes first, so its first weights depend on the seed alone.

    Args:
        cfg: config of the run.
        num_classes: number of classes of the data.
        labeled_share: part of the training images that have a label; None where all have one.
        samples: class of each training image, or -1, (n,), for methods that need it.

    Returns:
        The classifier with its teacher and methods, and the student by itself, which shares its
        parameters.

    Raises:
        FileNotFoundError: a checkpoint file does not exist.
        KeyError: a network's name is unknown.
        ValueError: weights, taps or methods do not fit.
    """
    student = build_model(
        cfg.MODEL.NAME, cfg.MODEL.WEIGHTS, num_classes, "MODEL", entry=cfg.MODEL.WEIGHTS_ENTRY
    )
    plans = plan_config(cfg)
    if not plans:
        preprocess, _ = build_preprocess(cfg)
        smoothing = cfg.SOLVER.LABEL_SMOOTHING
        plain = DistilledClassifier(TappedModel(student), preprocess, label_smoothing=smoothing)
        return plain, student
    configs = teacher_configs(cfg)
    preprocesses = [build_preprocess(each) for each in configs]
    needs = needs_of_teacher(plans, fills=labeled_share is not None)
    is_itself = not taught(cfg) or cfg.TEACHER.NAME == AVERAGE
    if is_itself:  # and what it will be the average of is not built yet
        teachers, known = [student], [num_classes]
    else:
        built = [build_teacher(each, num_classes, needs) for each in configs]
        teachers, known = [network for network, _ in built], [classes for _, classes in built]
        student = reuse_classifier(cfg, student, teachers[0])
    tapped, taught_by = _tap(cfg, student, teachers, plans)
    with_norms = Need.NORMS in needs
    side = tapped.find_side(cfg.INPUT.SIZE, num_classes, with_norms=with_norms)
    size = cfg.TEACHER.SIZE or cfg.INPUT.SIZE
    sides = [
        teacher.find_side(size, classes, with_norms=with_norms)
        for teacher, classes in zip(taught_by, known, strict=True)
    ]
    if Need.LEVELS in needs:
        for theirs in sides:
            ours = side.levels[len(side.levels) - len(theirs.levels) :]
            logger.info("Levels compared: %s", describe_levels(ours, theirs.levels))
    peers = None
    if cfg.PEERS.NAMES:
        peers = build_peers(cfg, num_classes, tapped.shared, needs)
        found = peers.find_sides(tapped, cfg.INPUT.SIZE, num_classes)
        side = side._replace(peers=tuple(found))
    period, combine = cfg.PEERS.EXCHANGE_PERIOD, cfg.TEACHER.COMBINE
    is_one = len(sides) == 1 or combine == "logits"
    preprocess, own = preprocesses[0]
    teacher_preprocess: nn.Module | None = own
    if len(taught_by) > 1:
        seen = [theirs or ours for ours, theirs in preprocesses]
        teacher: nn.Module = SeveralTeachers(seen, taught_by, average=combine == "logits")
        teacher_preprocess = nn.Identity()
    else:
        teacher = taught_by[0]
    classifier = DistilledClassifier(
        tapped,
        preprocess,
        teacher=None if is_itself else FrozenTeacher(teacher),
        teacher_preprocess=teacher_preprocess,
        peers=peers,
        past=PastNetworks(tapped, peers, period) if peers is not None and period else None,
        methods=build_methods(
            plans,
            side,
            sides[0],
            others=() if is_one else sides[1:],
            largest_weight=cfg.TEACHER.LARGEST_WEIGHT if combine == "balanced" else 0.0,
            samples=samples,
            length=cfg.SOLVER.EPOCHS,
        ),
        cross_entropy_weight=_cross_entropy_weight(cfg, plans),
        label_smoothing=cfg.SOLVER.LABEL_SMOOTHING,
        teacher_knows_classes=set(known) == {num_classes},
        # With less than one label in a batch, its weight would grow with the images without one.
        labeled_share=labeled_share and max(labeled_share, 1 / cfg.SOLVER.BATCH_SIZE),
    )
    return classifier, student


def _cross_entropy_weight(cfg: CfgNode, plans: Mapping[str, MethodPlan]) -> float:
    """The factor of the loss on the labels, which some methods do without."""
    without = [name for name, plan in plans.items() if not plan.method.learns_from_labels]
    weight = float(cfg.DISTILL.CROSS_ENTROPY_WEIGHT)
    if without and weight:
        logger.info("%s learns without the labels; their loss is left out", ", ".join(without))
    return 0.0 if without else weight


def _tap(
    cfg: CfgNode,
    student: nn.Module,
    teachers: Sequence[nn.Module],
    plans: Mapping[str, MethodPlan],
) -> tuple[TappedModel, list[TappedModel]]:
    """Tap student and teachers for what the methods need."""
    needs = needs_of(plans)
    names: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((), ())] * len(teachers)
    if Need.LEVELS in needs:
        activation = _activation(cfg, plans)
        names = [choose_taps(cfg, student, each, activation=activation) for each in teachers]
    vectors = Need.VECTOR in needs
    ours = max((own for own, _ in names), key=len)
    size = cfg.INPUT.SIZE
    tapped = TappedModel(
        student,
        ours,
        "DISTILL.STUDENT_TAPS",
        vector=find_vector(student, size) if vectors else "",
        shared=find_shared(cfg, student),
    )
    size = cfg.TEACHER.SIZE or size
    return tapped, [
        TappedModel(
            each, taps, "DISTILL.TEACHER_TAPS", vector=find_vector(each, size) if vectors else ""
        )
        for each, (_, taps) in zip(teachers, names, strict=True)
    ]


def _activation(cfg: CfgNode, plans: Mapping[str, MethodPlan]) -> str:
    """Where methods on levels mean them: "before" or "after" the activation, or "" for either.

    Raises:
        ValueError: they do not agree, and no taps are named.
    """
    on_levels = {k: x.method for k, x in plans.items() if Need.LEVELS in x.method.needs}
    meant = {method.activation for method in on_levels.values()}
    if len(meant) > 1 and not cfg.DISTILL.STUDENT_TAPS:
        words = [f"{k} on maps {x.activation or 'of either kind'}" for k, x in on_levels.items()]
        raise ValueError(
            "DISTILL.METHODS must not mix methods on maps before or after the activation with "
            f"others unless STUDENT_TAPS and TEACHER_TAPS name the maps; got {', '.join(words)}"
        )
    return meant.pop()
