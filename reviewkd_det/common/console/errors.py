"""Errors as a command-line user sees them: a sentence to act on, or where a defect is.

A sentence is what our own packages raise by a `raise` statement, what the system says of a file, or
the end of a process that was killed. Anything else is a defect, of ours, of a library or of a
user's own code. The statement is what tells them apart, not a class of our own: callers get
Python's own kinds of error, and no sentence can be forgotten.
"""

import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["is_sentence", "keep_tracebacks_in", "listed", "one_sentence_errors"]

TRACEBACK = "REVIEWKD_DET_TRACEBACK"
ROOT = Path(__file__).resolve().parents[3]
# In a checkout there are more; elsewhere a package of their names is somebody else's.
PACKAGES = ("reviewkd_det", "classification") + (
    ("benchmarks", "tools") if (ROOT / "setup.py").is_file() else ()
)
# What to do where a package is absent that commands need and pip does not bring by itself.
REMEDIES = {
    "detectron2": "install it, or its pure-Python copy with reviewkd-setup-detectron2",
    "accelerate": "pip install 'reviewkd_det[classification]'",
    "timm": "pip install 'reviewkd_det[backbones]'",
    "sklearn": "pip install 'reviewkd_det[demo]'",
}
# A frame of a traceback that another process sent as text, and its line of source.
FRAME = re.compile(r'^ *File "(.+)", line (\d+), in .*(?:\n +(?! |File ")(.+))?', re.MULTILINE)

_folder: list[Path] = []  # of the run, once it has one


class Origin(NamedTuple):
    """Where an error was raised: the file, and the number and text of the line."""

    file: str
    line: int
    source: str


def one_sentence_errors(main: Callable[[], None]) -> None:
    """Call `main`; turn an error into one line and exit code 1.

    What a user can mend is the sentence itself. Of a defect the line names the kind, the place and
    a file that holds the traceback. REVIEWKD_DET_TRACEBACK=1 shows the traceback instead.
    """
    try:
        main()
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        line = _sentence(error) if is_sentence(error) else _report(error)
        print(f"{Path(sys.argv[0]).name}: error: {line}", file=sys.stderr)
        sys.exit(1)


def keep_tracebacks_in(folder: str | Path) -> None:
    """Write tracebacks of defects into a folder that exists, a run's, from now on."""
    _folder[:] = [Path(folder)]


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names of an error sentence, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def is_sentence(error: Exception) -> bool:
    """Whether an error says by itself what a user can mend."""
    # Torch is looked up, not imported: before it is, none of its errors can have been raised.
    processes = sys.modules.get("torch.multiprocessing")
    if processes and isinstance(error, processes.ProcessExitedException):
        return True
    if _sent_traceback(error) is None and isinstance(error, OSError) and error.errno:
        return True
    if _remedy(error):
        return True
    origin = _origin(error)
    if origin is None or not _is_ours(origin.file):
        return False
    # By its kind: what goes wrong while a sentence is made up has the same line and another one.
    return origin.source.startswith(f"raise {_summary(error).partition(':')[0]}(")


def _is_ours(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES


def _origin(error: Exception) -> Origin | None:
    """Where an error was raised, in whichever process; None where nothing is known."""
    if (sent := _sent_traceback(error)) is not None:
        frames = FRAME.findall(sent)
        return Origin(frames[-1][0], int(frames[-1][1]), frames[-1][2]) if frames else None
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        return Origin(frame.filename, frame.lineno or 0, frame.line or "")
    return None


def _sent_traceback(error: Exception) -> str | None:
    """The traceback of another process that an error's message holds."""
    message = _message(error)
    return message if "Traceback (most recent call last):" in message else None


def _message(error: Exception) -> str:
    # The text of a KeyError has quotes around its message.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _summary(error: Exception) -> str:
    """The kind of an error and its message, in one line."""
    if (sent := _sent_traceback(error)) is None:
        message = " ".join(_message(error).split())
        return f"{type(error).__name__}: {message}" if message else type(error).__name__
    *_, end = FRAME.split(sent)
    return next((line for line in end.splitlines() if line[:1].strip()), end.strip())


def _remedy(error: Exception) -> str:
    name = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    return REMEDIES.get(name.partition(".")[0], "")


def _sentence(error: Exception) -> str:
    summary = _summary(error)
    if isinstance(error, ModuleNotFoundError) and (remedy := _remedy(error)):
        return f"{str(error.name).partition('.')[0]} must be installed; got none; {remedy}"
    return summary.partition(": ")[2] or summary


def _report(error: Exception) -> str:
    """One line on a defect, whose traceback is written into a file."""
    origin = _origin(error)
    where = f" ({origin.file}:{origin.line})" if origin else ""
    return f"{_summary(error)}{where}; the traceback is in {_write_traceback(error)}"


def _write_traceback(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    begin = time.strftime("error-%Y%m%d-%H%M%S-")
    for folder in (*_folder, Path(tempfile.gettempdir())):
        try:
            number, path = tempfile.mkstemp(".txt", begin, folder, text=True)
            with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:  # a full disk, say
            continue
        return path
    return f"no file, which cannot be written; {TRACEBACK}=1 shows it"
