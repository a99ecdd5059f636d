"""Errors as a command-line user sees them."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["listed", "one_sentence_errors"]

TRACEBACK = "REVIEWKD_DET_TRACEBACK"
MENDABLE = (
    ArithmeticError,
    AssertionError,  # Detectron2's and yacs' own checks of a config
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
)


def one_sentence_errors(main: Callable[[], None]) -> None:
    """Call `main`; turn an error that a user can mend into one sentence and exit code 1.

    The environment variable REVIEWKD_DET_TRACEBACK=1 shows the traceback instead.
    """
    try:
        main()
    except _mendable() as error:
        if os.environ.get(TRACEBACK):
            raise
        sentence = _sentence(error)
        if isinstance(error, AssertionError | RuntimeError):
            sentence += f" ({TRACEBACK}=1 shows where)"
        print(f"{Path(sys.argv[0]).name}: error: {sentence}", file=sys.stderr)
        sys.exit(1)


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names of an error sentence, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _mendable() -> tuple[type[Exception], ...]:
    """The kinds of error that a user can mend; called when there is one."""
    # Torch is looked up, not imported: before it is, none of its errors can have been raised.
    processes = sys.modules.get("torch.multiprocessing")
    return (
        *MENDABLE,
        # In a process of several: one that raised, one that was killed.
        *(
            [processes.ProcessRaisedException, processes.ProcessExitedException]
            if processes
            else []
        ),
    )


def _sentence(error: Exception) -> str:
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if "Traceback (most recent call last):" in lines:  # from a worker process: its last line counts
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(lines) or type(error).__name__
