"""Settings of a distillation method: fields with a default, a range and a sentence of meaning.

Whoever trains with a method makes its configuration keys of these fields.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["AUTO", "SettingError", "Settings", "setting", "weight_setting"]

AUTO = "auto"


class SettingError(ValueError):
    """A setting that is out of its range.

    Args:
        name: name of the field.
        rule: what it must do, as in "be positive".
        value: what was given.
    """

    def __init__(self, name: str, rule: str, value: Any) -> None:
        super().__init__(f"{name} must {rule}; got {value!r}")
        self.name, self.rule, self.value = name, rule, value


def setting(
    default: Any,
    meaning: str,
    *,
    choices: Sequence[Any] = (),
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    words: Sequence[str] = (),
    **defaults: Any,
) -> Any:
    """Declare a field of `Settings`.

    Args:
        default: value where nobody sets another; its type is the field's.
        meaning: one sentence, for the documentation of the configuration.
        choices: the values it may take; empty for any.
        least: smallest value of a number, or of each number in a tuple.
        above: number that a value must be greater than.
        below: number that a value must be less than.
        words: what a number may be instead.
        defaults: defaults of particular uses, by their names; a use may have a more general one
            besides, see `Settings.default`.

    Returns:
        A dataclass field.
    """
    metadata = {
        "meaning": meaning, "choices": tuple(choices), "words": tuple(words),
        "least": least, "above": above, "below": below, "defaults": defaults,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def weight_setting(default: float | str, **defaults: Any) -> Any:
    """Declare the field `loss_weight`, a number or "auto".

    Args:
        default: see `setting`.
        defaults: see `setting`.
    """
    meaning = "Factor of the method's loss, or auto, which finds it as it trains."
    return setting(default, meaning, least=0, words=(AUTO,), **defaults)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every method can be told; a method's own settings are a subclass.

    Raises:
        SettingError: a value is out of its field's range or of another type.
    """

    loss_weight: float | str = weight_setting(1.0)
    gradient_share: float = setting(
        1.0,
        "With LOSS_WEIGHT auto, norm of the gradient of the method's loss on what it reads of the "
        "student, in those of the student's own losses, before it falls.",
        above=0,
        detection=3.0,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))

    @classmethod
    def default(cls, name: str, uses: Sequence[str] = ()) -> Any:
        """Look up the default of a field.

        Args:
            name: name of the field.
            uses: names of a use, the most particular one first, such as ("one_stage", "detection").

        Returns:
            The default of the first use that has one, else the field's own.
        """
        (field,) = (x for x in dataclasses.fields(cls) if x.name == name)
        defaults = field.metadata["defaults"]
        return next((defaults[use] for use in uses if use in defaults), field.default)


def _check(field: "dataclasses.Field[Any]", value: Any) -> None:
    name, rules = field.name, field.metadata
    if value in rules["words"]:
        return
    kind = float if rules["words"] else type(field.default)
    fits = isinstance(value, int | float if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        or_word = "".join(f" or {word}" for word in rules["words"])
        raise SettingError(name, f"be of type {kind.__name__}{or_word}", value)
    if rules["choices"] and value not in rules["choices"]:
        *others, last = rules["choices"]
        raise SettingError(name, f"be {', '.join(map(str, others))} or {last}", value)
    least, above, below = rules["least"], rules["above"], rules["below"]
    if below is not None and not value < below:
        raise SettingError(name, f"be below {below:g}", value)
    numbers = value if isinstance(value, tuple) else (value,)
    if least is not None or above is not None:
        integers = isinstance(value, tuple)
        if integers and not all(type(x) is int for x in numbers):
            raise SettingError(name, "hold integers", value)
        if least is not None and not all(x >= least for x in numbers):
            rule = "not be negative" if least == 0 else f"be at least {least:g}"
            raise SettingError(name, rule, value)
        if above is not None and not all(x > above for x in numbers):
            rule = "be positive" if above == 0 else f"be above {above:g}"
            raise SettingError(name, rule, value)
