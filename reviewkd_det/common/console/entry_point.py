"""What every command is: a function whose errors are sentences and which hides known warnings."""

from collections.abc import Callable
from functools import wraps

from reviewkd_det.common.console.errors import one_sentence_errors
from reviewkd_det.common.console.known_warnings import hide_known_warnings

__all__ = ["entry_point"]


def entry_point(main: Callable[[], None]) -> Callable[[], None]:
    """Make a function a command.

    Args:
        main: function that reads `sys.argv` and raises what goes wrong; the command keeps it as
            `__wrapped__`.

    Returns:
        The command: an error that a user can mend becomes one sentence and exit code 1.
    """

    @wraps(main)
    def command() -> None:
        hide_known_warnings()
        one_sentence_errors(main)

    return command
