"""A module through torch.compile where that works, and as it is where it does not."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["compiled_or_plain"]


def compiled_or_plain(module: nn.Module) -> Callable[..., Any]:
    """Compile a module at its first call, for inputs of any size.

    Args:
        module: called under no-grad.

    Returns:
        A function that calls the compiled module. Where it cannot be compiled, one warning says
        why, and the module itself is called from then on.
    """
    call: Callable[..., Any] = torch.compile(module, dynamic=True)

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal call
        if call is module:
            return module(*args, **kwargs)
        try:
            return call(*args, **kwargs)
        except (
            Exception
        ) as error:  # of the compiler's many kinds, or the module's own, raised again
            call = module
            result = module(*args, **kwargs)
            reason = str(error).strip().partition("\n")[0]
            logging.getLogger(__name__).warning("Running uncompiled: %s", reason)
            return result

    return run
