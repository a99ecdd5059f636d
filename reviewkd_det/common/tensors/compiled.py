"""A function through torch.compile where that works, and as it is where it does not."""

import logging
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["compiled_or_plain"]


def compiled_or_plain(
    function: Callable[..., Any],
    logger: logging.Logger,
    *,
    dynamic: bool | None = None,
    mode: str = "default",
) -> Callable[..., Any]:
    """Compile a function or module at its first call.

    Args:
        function: what is called.
        logger: takes the warning.
        dynamic: compile once for inputs of any size; None compiles for the sizes that come, and for
            any once they change.
        mode: as torch.compile takes it; "reduce-overhead" replays CUDA graphs on a GPU.

    Returns:
        A function that calls what was compiled. Where it cannot be compiled, one warning says why,
        and the function itself is called from then on.
    """
    call: Callable[..., Any] = torch.compile(function, dynamic=dynamic, mode=mode)

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal call
        if call is function:
            return function(*args, **kwargs)
        try:
            return call(*args, **kwargs)
        except (
            Exception
        ) as error:  # of the compiler's many kinds, or the function's own, raised again
            call = function
            result = function(*args, **kwargs)
            reason = str(error).strip().partition("\n")[0]
            logger.warning("Running uncompiled: %s", reason)
            return result

    return run
