"""A function through torch.compile where that works, and as it is where it does not."""

import logging
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["compiled_or_plain"]

# Trying out kernels takes memory as well; without the compiler it would take more.
OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)


def compiled_or_plain(
    function: Callable[..., Any],
    logger: logging.Logger,
    *,
    dynamic: bool | None = None,
    mode: str = "default",
) -> Callable[..., Any]:
    """Compile a function or module at its first call, and again where new sizes need it.

    Args:
        function: function or module that is compiled.
        logger: logger that takes the warning.
        dynamic: whether to compile once for inputs of any size; None compiles for the sizes that
            come, and for any once they change.
        mode: mode of torch.compile; "reduce-overhead" replays CUDA graphs on a GPU.

    Returns:
        A function that calls what was compiled. Where the compiler fails, one warning says why,
        and the function itself is called from then on. Every other error, of the function or of
        memory that is full, is raised as it is, and the function is not called again.
    """
    call: Callable[..., Any] = torch.compile(function, dynamic=dynamic, mode=mode)

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal call
        try:
            return call(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:  # every error of the compiler
            cause = getattr(error, "inner_exception", error)  # what a backend raised
            if call is function or isinstance(cause, OUT_OF_MEMORY):
                raise
            reason = str(cause).strip().partition("\n")[0]
        logger.warning("Running uncompiled: %s", reason)
        call = function
        return function(*args, **kwargs)

    return run
