"""Which values the configuration keys take."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

from fvcore.common.config import CfgNode

from reviewkd_det.common.config.methods import own_settings
from reviewkd_det.common.distill.build import Customer, MethodPlan, check_settings, plan_methods
from reviewkd_det.common.runs.average import check_decay
from reviewkd_det.core import AUTO, Need, find_method, registered_methods

__all__ = [
    "ALIASES",
    "AVERAGE",
    "BRANCH",
    "CUSTOMER",
    "check_config",
    "plan_config",
    "taught",
    "unlabeled_paths",
]

BRANCH = "branch"  # name of the student's own last stage as a peer
AVERAGE = "average"  # name of the teacher that is the average of the student's weights

# New names of keys by old ones, which are still understood.
ALIASES = {
    f"DISTILL.REVIEWKD.{key}": f"DISTILL.{key}"
    for key in (
        "STUDENT_TAPS", "TEACHER_TAPS", "STUDENT_ACTIVATION", "TEACHER_ACTIVATION", "POOLED",
    )
}  # fmt: skip
CUSTOMER = Customer(
    "a classifier",
    Need.LEVELS | Need.LOGITS | Need.TARGET | Need.VECTOR | Need.SAMPLE | Need.NORMS
    | Need.INPUT_GRADIENT | Need.STAGE | Need.CLASSIFIER | Need.ALONE | Need.PEERS | Need.SHARED,
    ("classification",),
    "DISTILL",
    "epochs",
    first=1,
)  # fmt: skip

CHOICES = {
    "DISTILL.STUDENT_ACTIVATION": ("before", "after"),
    "DISTILL.TEACHER_ACTIVATION": ("before", "after"),
    "SOLVER.COMPILE": (
        "none", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs",
    ),
    "SOLVER.OPTIMIZER": ("SGD", "AdamW"),
    "SOLVER.SCHEDULE": ("multistep", "cosine"),
    "SOLVER.PRECISION": ("no", "bf16", "fp16"),
    "TEACHER.COMBINE": ("each", "balanced", "logits"),
}  # fmt: skip
# A part's replay overwrites the gradients of the part before: pytorch issues 96693 and 169545.
WITH_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
POSITIVE = (
    "INPUT.SIZE",
    "SOLVER.ACCUMULATION_STEPS",
    "SOLVER.BATCH_SIZE",
    "SOLVER.EPOCHS",
    "SOLVER.GAMMA",
    "SOLVER.STATES_TO_KEEP",
    "TEST.BATCH_SIZE",
    "TEST.PERIOD",
)
NOT_NEGATIVE = (
    "DATA.SUBSET_SEED",
    "DISTILL.CROSS_ENTROPY_WEIGHT",
    "INPUT.CUTMIX",
    "INPUT.MIXUP",
    "PEERS.EXCHANGE_PERIOD",
    "SEED",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.LR",
    "SOLVER.MOMENTUM",
    "SOLVER.WEIGHT_DECAY",
    "TEACHER.SIZE",
    "TEST.PATIENCE",
)  # fmt: skip


def check_config(cfg: CfgNode) -> None:
    """Check the values that nothing checks where they are used.

    Raises:
        ValueError: a value is out of range, two exclude each other, or methods have no teacher.
    """
    for key, choices in CHOICES.items():
        value = _get(cfg, key)
        for part in value if isinstance(value, tuple) else (value,):
            if part not in choices:
                raise ValueError(f"{key} must be of {', '.join(choices)}; got {part!r}")
    for key in POSITIVE:
        if not _get(cfg, key) > 0:
            raise ValueError(f"{key} must be positive; got {_get(cfg, key)}")
    for key in NOT_NEGATIVE:
        if not _get(cfg, key) >= 0:
            raise ValueError(f"{key} must not be negative; got {_get(cfg, key)}")
    for key in ("INPUT.RANDOM_ERASING", "SOLVER.LABEL_SMOOTHING"):
        if not 0 <= _get(cfg, key) <= 1:
            raise ValueError(f"{key} must be from 0 to 1; got {_get(cfg, key)}")
    check_decay(cfg.SOLVER.EMA_DECAY, "SOLVER.EMA_DECAY")
    for key in ("INPUT.MEAN", "INPUT.STD", "TEACHER.MEAN", "TEACHER.STD"):
        value = _get(cfg, key)
        if value == () and key.startswith("TEACHER"):
            continue
        numbers = len(value) == 3 and all(isinstance(part, int | float) for part in value)
        if not numbers or (key.endswith("STD") and min(value) <= 0):
            raise ValueError(f"{key} must be one number for red, green and blue; got {value}")
    if not all(isinstance(epoch, int | float) for epoch in cfg.SOLVER.MILESTONES):
        raise ValueError(f"SOLVER.MILESTONES must be epochs; got {cfg.SOLVER.MILESTONES}")
    plans = plan_config(cfg)
    for name, plan in plans.items():
        if plan.settings.loss_weight == AUTO and cfg.SOLVER.COMPILE != "none":
            raise ValueError(
                f"DISTILL.{name.upper()}.LOSS_WEIGHT must be a number with SOLVER.COMPILE "
                f"{cfg.SOLVER.COMPILE}, in whose compiled step no gradients are measured; got auto"
            )
        if Need.INPUT_GRADIENT in plan.method.needs and cfg.SOLVER.COMPILE != "none":
            raise ValueError(
                f"SOLVER.COMPILE must be none with DISTILL.METHODS {name}, whose gradients of "
                f"gradients are not compiled; got {cfg.SOLVER.COMPILE}"
            )
    if cfg.SOLVER.COMPILE in WITH_CUDA_GRAPHS and cfg.SOLVER.ACCUMULATION_STEPS > 1:
        raise ValueError(
            "SOLVER.ACCUMULATION_STEPS must be 1 with the CUDA graphs of SOLVER.COMPILE "
            f"{cfg.SOLVER.COMPILE}, which overwrite gradients; got {cfg.SOLVER.ACCUMULATION_STEPS}"
        )
    _check_teacher(cfg, plans)
    _check_several(cfg, plans)
    _check_peers(cfg, plans)
    _check_mixing(cfg, plans)


def taught(cfg: CfgNode) -> tuple[str, ...]:
    """The methods of a config that have a teacher."""
    return _with_teacher(plan_config(cfg))


def _with_teacher(plans: Mapping[str, MethodPlan]) -> tuple[str, ...]:
    return tuple(name for name, plan in plans.items() if Need.ALONE not in plan.method.needs)


def _check_teacher(cfg: CfgNode, plans: Mapping[str, MethodPlan]) -> None:
    has_teacher = bool(_with_teacher(plans))
    if has_teacher and not cfg.TEACHER.NAME:
        raise ValueError(
            f"TEACHER.NAME must name the teacher of DISTILL.METHODS {cfg.DISTILL.METHODS}; "
            "got ''; to train without one set DISTILL.METHODS \"()\""
        )
    if unlabeled_paths(cfg.DATA.UNLABELED) and not has_teacher:
        raise ValueError(
            "DISTILL.METHODS must name how to learn from a teacher on the images of DATA.UNLABELED "
            f"{cfg.DATA.UNLABELED!r}; got {tuple(cfg.DISTILL.METHODS)}; to train on labels alone "
            'set DATA.UNLABELED "()"'
        )
    if cfg.TEACHER.NAME == AVERAGE and has_teacher and not cfg.SOLVER.EMA_DECAY:
        raise ValueError(
            "SOLVER.EMA_DECAY must be more than 0 with TEACHER.NAME average, the average of the "
            "student's own weights; got 0"
        )
    replacing = [k for k, x in plans.items() if Need.CLASSIFIER in x.method.needs]
    if cfg.TEACHER.NAME == AVERAGE and replacing:
        raise ValueError(
            f"TEACHER.NAME must be another network's for DISTILL.METHODS {', '.join(replacing)}, "
            "whose student takes its classifier; got average"
        )


def _check_several(cfg: CfgNode, plans: Mapping[str, MethodPlan]) -> None:
    others = cfg.TEACHER.OTHERS
    for pair in others:
        if not (
            isinstance(pair, list | tuple)
            and len(pair) == 2
            and all(x and isinstance(x, str) for x in pair)
        ):
            raise ValueError(f"TEACHER.OTHERS must hold [NAME, WEIGHTS] of each; got {pair!r}")
    if not others:
        return
    if cfg.TEACHER.NAME == AVERAGE:
        raise ValueError("TEACHER.OTHERS must be () with TEACHER.NAME average; got " + str(others))
    count, largest = 1 + len(others), cfg.TEACHER.LARGEST_WEIGHT
    if not 1 / count <= largest <= 1:
        raise ValueError(
            f"TEACHER.LARGEST_WEIGHT must be from 1 / {count}, an equal share, to 1; got {largest}"
        )
    on_logits, on_each = Need.LOGITS | Need.TARGET, ~(Need.INPUT_GRADIENT | Need.CLASSIFIER)
    taken = on_each if cfg.TEACHER.COMBINE == "each" else on_logits
    for name in _with_teacher(plans):
        if lacking := plans[name].method.needs & ~taken:
            raise ValueError(
                f"DISTILL.METHODS {name} must have {lacking.words}, which several teachers with "
                f"TEACHER.COMBINE {cfg.TEACHER.COMBINE} do not give"
            )
    if cfg.TEACHER.COMBINE == "balanced" and cfg.SOLVER.COMPILE != "none":
        raise ValueError(
            "SOLVER.COMPILE must be none with TEACHER.COMBINE balanced, which measures gradients; "
            f"got {cfg.SOLVER.COMPILE}"
        )


def _check_peers(cfg: CfgNode, plans: Mapping[str, MethodPlan]) -> None:
    names = tuple(cfg.PEERS.NAMES)
    users = [name for name, plan in plans.items() if Need.PEERS in plan.method.needs]
    if users and not names:
        raise ValueError(
            f"PEERS.NAMES must name networks to train beside the student for DISTILL.METHODS "
            f"{', '.join(users)}; got ()"
        )
    if names and not users:
        peers = [name for name, x in registered_methods().items() if Need.PEERS in x.needs]
        raise ValueError(
            f"DISTILL.METHODS must name one of {', '.join(peers)} with PEERS.NAMES {names}; got "
            f"{tuple(cfg.DISTILL.METHODS)}"
        )
    sharing = [name for name in users if Need.SHARED in plans[name].method.needs]
    if sharing and set(names) != {BRANCH}:
        raise ValueError(
            f"PEERS.NAMES must be branches alone for DISTILL.METHODS {', '.join(sharing)}; got "
            f"{names}"
        )


def unlabeled_paths(value: object) -> tuple[str, ...]:
    """What DATA.UNLABELED names: paths, or "rest".

    Args:
        value: value of the key, one of them or a list; None, "" and () name nothing.

    Raises:
        ValueError: it is none of these.
    """
    if value is None or value == "":
        return ()
    paths = (value,) if isinstance(value, str) else value
    if not isinstance(paths, list | tuple) or not all(x and isinstance(x, str) for x in paths):
        raise ValueError(f"DATA.UNLABELED must be a path, 'rest' or a list of these; got {value!r}")
    return tuple(paths)


def _check_mixing(cfg: CfgNode, plans: Mapping[str, MethodPlan]) -> None:
    given = {key: _get(cfg, key) for key in ("INPUT.MIXUP", "INPUT.CUTMIX")}
    if not any(given.values()):
        return
    if unlabeled := unlabeled_paths(cfg.DATA.UNLABELED):
        raise ValueError(
            "INPUT.MIXUP and INPUT.CUTMIX must be 0 with DATA.UNLABELED, whose images have no "
            f"label to mix; got {given} with {unlabeled}"
        )
    for name, plan in plans.items():
        if plan.method.needs & (Need.TARGET | Need.SAMPLE):
            raise ValueError(
                f"INPUT.MIXUP and INPUT.CUTMIX must be 0 with DISTILL.METHODS {name}, which needs "
                f"one class for each image; got {' and '.join(map(str, given.values()))}"
            )


def plan_config(cfg: CfgNode) -> dict[str, MethodPlan]:
    """The methods that a config names, with their settings.

    Raises:
        ValueError: a method is unknown, or a setting of any method is out of range.
    """
    for name in cfg.DISTILL.METHODS:
        find_method(name, "DISTILL.METHODS")
    settings = {
        name: own_settings(cfg.DISTILL, name, ALIASES, "DISTILL") for name in registered_methods()
    }
    chosen = {name: settings.pop(name) for name in cfg.DISTILL.METHODS}
    for name, values in settings.items():
        check_settings(name, values, CUSTOMER)
    return plan_methods(chosen, CUSTOMER)


def _get(cfg: CfgNode, key: str) -> Any:
    return reduce(lambda node, part: node[part], key.split("."), cfg)
