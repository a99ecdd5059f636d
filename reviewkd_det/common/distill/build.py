"""Building the methods that a config names, for whoever trains with them."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from torch import Tensor

from reviewkd_det.common.config.methods import Uses, named_by, read_settings
from reviewkd_det.core import (
    AUTO,
    BY_CLASS,
    FromEach,
    GradientShare,
    Method,
    Need,
    Settings,
    Side,
    Weighted,
    find_method,
)

__all__ = [
    "Customer",
    "MethodPlan",
    "build_methods",
    "check_settings",
    "needs_of",
    "plan_methods",
]


DECAY_SHARE = "decay_share"
AUTO_DECAY = 2 / 3  # of the training, over which a weight falls that is found as it trains


class Customer(NamedTuple):
    """Who trains with methods.

    Args:
        name: what a sentence calls it, such as "a classifier".
        gives: needs of methods that are served.
        uses: which defaults of the settings are its own; see `Settings.default`.
        key: config key of its section of distillation.
        unit: unit of warm-up and decay, as in the names of their settings: "iters", "epochs".
        first: number of the first one in a training.
    """

    name: str
    gives: Need
    uses: Uses
    key: str
    unit: str
    first: int = 0

    @property
    def warmup(self) -> str:
        """Name of the setting of the warm-up."""
        return f"warmup_{self.unit}"

    @property
    def decay(self) -> str:
        """Name of the setting of the decay."""
        return f"decay_{self.unit}"

    @property
    def steps(self) -> tuple[str, str, str]:
        """Names of the settings of the weight over a training, which every method has."""
        return self.warmup, self.decay, DECAY_SHARE


class MethodPlan(NamedTuple):
    """A method before student and teacher are known.

    Args:
        method: class of the method.
        settings: settings of the method.
        warmup_steps: steps over which its weight grows.
        decay_steps: steps over which its weight falls.
        decay_share: part of the training over which it falls, in the place of a number of steps, or
            "auto": two thirds where the weight is, else none.
        key: config key of its node.
    """

    method: type[Method]
    settings: Settings
    warmup_steps: float
    decay_steps: float
    decay_share: float | str
    key: str


def plan_methods(
    settings: Mapping[str, Mapping[str, Any]], customer: Customer
) -> dict[str, MethodPlan]:
    """Find the methods, and check what they need and are told.

    Args:
        settings: by method's name the values of its settings, of warm-up and decay, by lower-case
            name; what is left out or None has its default.
        customer: who trains.

    Raises:
        ValueError: a method is unknown or needs what the customer does not give, or a value is out
            of range.
    """
    plans = {}
    for name, values in settings.items():
        method = find_method(name, f"{customer.key}.METHODS")
        if lacking := method.needs & ~customer.gives:
            raise ValueError(
                f"{customer.key}.METHODS {name} must have {lacking.words}, which {customer.name} "
                "does not give"
            )
        plans[name] = check_settings(name, values, customer)
    return plans


def check_settings(name: str, values: Mapping[str, Any], customer: Customer) -> MethodPlan:
    """Check what a method is told, whether or not the customer can serve it.

    Args:
        name: name of the method.
        values: values of its settings, of warm-up and decay, by lower-case name.
        customer: who trains.

    Raises:
        ValueError: a value is out of range.
    """
    method, key = find_method(name), f"{customer.key}.{name.upper()}"
    lengths = {name: values.get(name) or 0 for name in customer.steps}
    given = lengths[DECAY_SHARE]
    if isinstance(given, str):
        if given != AUTO:
            raise ValueError(f"{key}.DECAY_SHARE must be a number or auto; got {given!r}")
        lengths[DECAY_SHARE] = 0  # which no bound is for
    for word, value in lengths.items():
        if not value >= 0:
            raise ValueError(f"{key}.{word.upper()} must not be negative; got {value}")
    warmup, decay, share = lengths.values()
    if share > 1:
        raise ValueError(f"{key}.DECAY_SHARE must be at most 1, the training; got {share}")
    if share and decay:
        raise ValueError(
            f"{key}.DECAY_SHARE must be 0 beside {customer.decay.upper()}; got {share} and {decay}"
        )
    if 0 < decay <= warmup:
        raise ValueError(
            f"{key}.{customer.decay.upper()} must be more than {customer.warmup.upper()}, "
            f"{warmup}, or 0; got {decay}"
        )
    if 0 < decay <= customer.first:
        raise ValueError(
            f"{key}.{customer.decay.upper()} must be more than {customer.first}, with which "
            f"{customer.unit} begin, or 0; got {decay}, with which the method would never act"
        )
    rest = {field: value for field, value in values.items() if field not in lengths}
    settings = read_settings(method, rest, customer.uses, key)
    return MethodPlan(method, settings, warmup, decay, given, key)


def needs_of(methods: Mapping[str, MethodPlan] | Mapping[str, Weighted]) -> Need:
    """What the methods, planned or built, need together."""
    return reduce(or_, (x.method.needs for x in methods.values()), Need(0))


def build_methods(
    plans: Mapping[str, MethodPlan],
    student: Side,
    teacher: Side,
    *,
    others: Sequence[Side] = (),
    largest_weight: float = 0.0,
    samples: Tensor | None = None,
    length: float = 0,
) -> dict[str, Weighted]:
    """Build the methods between a student and its teacher.

    Args:
        plans: methods by name, from `plan_methods`.
        student: what is known of the student, as far as the needs ask for it.
        teacher: what is known of the teacher, as far as the needs ask for it.
        others: the same of further teachers; each of several is compared with as many of the
            student's last levels as it has.
        largest_weight: largest weight of one of several teachers, see `FromEach`.
        samples: class of each training image, (n,), for methods that need it.
        length: length of the training in the unit of warm-ups, for methods with a stage before it
            and weights that fall over a part of it.

    Raises:
        ValueError: a setting does not fit these two, or they tell other classes apart.
    """
    built = {}
    for name, plan in plans.items():
        for each in (teacher, *others):
            if plan.method.needs & BY_CLASS and student.classes != each.classes:
                raise ValueError(
                    f"student and teacher must tell the same classes apart for {name}; got "
                    f"{student.classes} and {each.classes} logits"
                )
        if Need.LOGITS in plan.method.needs and student.binary and not plan.method.takes_binary:
            raise ValueError(
                f"{name} must take logits of binary classes, which the student has; got a method "
                "for a softmax"
            )
        with named_by(plan.key):
            method = _build_method(plan, student, (teacher, *others), largest_weight)
        if Need.SAMPLE in plan.method.needs:
            assert samples is not None, "the customer says that it gives them"
            method.meet_samples(samples)
        weight: float | GradientShare
        if isinstance(plan.settings.loss_weight, str):  # "auto"
            weight = GradientShare(plan.settings.gradient_share)
            method.add_module("gradient_share", weight)  # saved with the method's own state
        else:
            weight = plan.settings.loss_weight
        stage = round(getattr(plan.settings, "stage_share", 0) * length)
        decay = plan.decay_steps or _decay_steps(plan, length)
        built[name] = Weighted(method, weight, plan.warmup_steps, decay, stage)
    return built


def _decay_steps(plan: MethodPlan, length: float) -> float:
    if isinstance(plan.decay_share, str):
        decay = AUTO_DECAY * length if plan.settings.loss_weight == AUTO else 0.0
        return decay if decay > plan.warmup_steps else 0.0
    decay = plan.decay_share * length
    if plan.decay_share and decay <= plan.warmup_steps:
        raise ValueError(
            f"{plan.key}.DECAY_SHARE must be a part of the training that is longer than the "
            f"warm-up, {plan.warmup_steps}; got {plan.decay_share} of {length}"
        )
    return decay


def _build_method(
    plan: MethodPlan, student: Side, teachers: Sequence[Side], largest_weight: float
) -> Method:
    if len(teachers) == 1:
        return plan.method(plan.settings, student, teachers[0])
    counts = [len(teacher.levels) for teacher in teachers]
    first = len(student.levels)
    methods = [
        plan.method(
            plan.settings, student._replace(levels=student.levels[first - count :]), teacher
        )
        for count, teacher in zip(counts, teachers, strict=True)
    ]
    return FromEach(methods, counts, largest=largest_weight)
