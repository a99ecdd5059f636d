"""What a distilled run says of its methods before its first step."""

from collections.abc import Mapping

from torch import nn

from reviewkd_det.core import Method, Need

__all__ = ["describe_methods", "describe_parameters"]


def describe_parameters(module: nn.Module) -> str:
    """The number of parameters, with commas."""
    return f"{sum(p.numel() for p in module.parameters()):,}"


def describe_methods(
    methods: Mapping[str, Method],
    levels: str,
    parameters: nn.Module,
    cost: float | None,
    unit: str,
    uncounted: str = "",
) -> str:
    """The methods, what they compare, and what they cost beside the student, in a sentence.

    Args:
        methods: the methods by name.
        levels: the levels that methods on levels compare, as in "p2, p3".
        parameters: holds all that is trained with the methods.
        cost: ratio that `distillation_cost` gives; None leaves it out.
        unit: what the cost is a multiple of, as in "the student".
        uncounted: parts of the networks that the cost leaves out.
    """
    named = [
        f"{name} at {levels}" if Need.LEVELS in method.needs else name
        for name, method in methods.items()
    ]
    line = (
        f"{' and '.join(named)}; {describe_parameters(parameters)} parameters more in training only"
    )
    if cost is None:
        return line
    return (
        f"{line}; for each image teacher and methods add {cost:.2f} times the multiply-adds of "
        f"{unit} (forward and backward{f'; {uncounted} not counted' if uncounted else ''})"
    )
