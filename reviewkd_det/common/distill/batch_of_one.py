"""Whether normalisation finds more than one value of a channel in a batch of one image.

Batch normalisation in training needs two, which a single image has not on a level of one cell;
group normalisation with one channel to a group neither.
"""

from typing import Any

from torch import nn

from reviewkd_det.common.tensors.multiply_adds import count_multiply_adds

__all__ = ["REFUSAL", "StarvedError", "try_call"]

REFUSAL = "Expected more than 1 value per channel"  # how PyTorch begins to say so


class StarvedError(Exception):
    """A module normalises one value alone.

    Args:
        part: name of the module.
    """

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


def try_call(part: str, module: nn.Module, *inputs: Any) -> Any:
    """Call a copy of a module without values, in its present mode; the module is left as it is.

    Args:
        part: name of the module.
        inputs: arguments, in which all tensors are meta tensors.

    Returns:
        The output, of meta tensors.

    Raises:
        StarvedError: a channel has one value alone.
        Exception: of any other kind, where the module needs values.
    """
    try:
        return count_multiply_adds(module, *inputs, backward=False)[1]
    except ValueError as error:
        if str(error).startswith(REFUSAL):
            raise StarvedError(part) from error
        raise
