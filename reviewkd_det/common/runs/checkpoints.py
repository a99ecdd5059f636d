"""The full checkpoints of a run: which is the last, which are whole, which stay.

A checkpoint is one file of `torch.save`, whose archive has a checksum for each of its parts. What a
run that is resumed, evaluated, exported or drawn takes for its last is decided here alone.
"""

import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from reviewkd_det.common.runs.files import PART, replace_file
from reviewkd_det.common.weights.plain_pickle import refusal_reason
from reviewkd_det.common.weights.reading import read_torch_file

__all__ = ["Checkpoints", "find_flaw", "read_run_checkpoint"]

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run, in the order in which it made them.

    Args:
        folder: folder of the checkpoints, which all processes see.
        pattern: regular expression of a checkpoint's whole name; its groups are the numbers that
            give the order.
        final: name of the one that a run makes at its end, whose `iteration` gives its place.
        find_flaw: says what is wrong with the checkpoint of a path, "" where it is whole.
    """

    def __init__(
        self, folder: Path, pattern: str, find_flaw: Callable[[Path], str], *, final: str = ""
    ) -> None:
        self.folder = folder
        self.pattern = re.compile(pattern)
        self.final = final
        self.find_flaw = find_flaw
        self._flawed: list[Path] = []

    def all(self) -> list[Path]:
        """Every checkpoint, whole or not, the newest last."""
        placed = [(self._place(path), path) for path in self.folder.glob("*")]
        return [path for place, path in sorted((x for x in placed if x[0]), key=itemgetter(0))]

    def last_whole(self) -> Path | None:
        """The newest checkpoint that is whole; a warning names each that is passed over for it.

        Returns:
            Its path; None where there is no checkpoint at all.

        Raises:
            ValueError: there are checkpoints and none is whole.
        """
        flaws: dict[Path, str] = {}
        for path in reversed(self.all()):
            if not (flaw := self.find_flaw(path)):
                for flawed, what in flaws.items():
                    logger.warning("'%s' %s; taking '%s' instead", flawed, what, path)
                self._flawed = list(flaws)
                return path
            flaws[path] = flaw
        if flaws:
            shown = "; ".join(f"'{path}', which {flaw}" for path, flaw in flaws.items())
            raise ValueError(
                f"a run's last checkpoint must be whole; got {shown}; start anew with --overwrite"
            )
        return None

    @property
    def last_in_words(self) -> str:
        """The checkpoint that a run would go on from now."""
        good = [path for path in self.all() if path not in self._flawed]
        return f"the last good one is '{good[-1]}'" if good else "there is no good one yet"

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a checkpoint as a whole.

        Args:
            name: file name.
            content: tensors and plain data.

        Raises:
            OSError: it cannot be written, as on a full disk; earlier checkpoints are untouched.
        """
        path = self.folder / name
        with self.writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda part: _write(content, part))
        self._flawed = [flawed for flawed in self._flawed if flawed != path]

    def prune(self, keep: int) -> None:
        """Remove all but the newest checkpoints; the final one and flawed ones do not count.

        Args:
            keep: number of those that stay; 0 keeps all.
        """
        if keep:
            passed_over = {*self._flawed, self.folder / self.final}
            for path in [path for path in self.all() if path not in passed_over][:-keep]:
                _remove(path)

    def remove_parts(self) -> None:
        """Remove what a killed process has left half-written."""
        for part in self.folder.glob(f"*{PART}"):
            _remove(part)

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Say in a sentence why a file of the run could not be written, and what is left of it.

        Args:
            path: path of the file.

        Raises:
            OSError: the disk is full, or another error while writing.
        """
        try:
            yield
        except (OSError, RuntimeError) as error:  # torch's own is a RuntimeError
            free = shutil.disk_usage(next(p for p in path.absolute().parents if p.exists())).free
            raise OSError(
                f"'{path}' must be written as a whole; got {' '.join(str(error).split())} on a "
                f"disk with {free / 2**20:,.1f} MB free; {self.last_in_words}"
            ) from error

    def _place(self, path: Path) -> tuple[float, ...]:
        """Where a path stands in the order; () for what is no checkpoint."""
        if match := self.pattern.fullmatch(path.name):
            return tuple(int(number or 0) for number in match.groups())
        if path.name != self.final:
            return ()
        try:
            iteration = read_run_checkpoint(path)["iteration"]
        except Exception:  # a damaged one; whoever wants to use it is told why it cannot be
            iteration = math.inf
        return iteration, 1  # after the one of the same iteration


def read_run_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, as data only; its tensors are read from the file when used."""
    content: dict[str, Any] = read_torch_file(path, mmap=True)
    return content


def find_flaw(path: Path, entries: Set[str]) -> str:
    """What is wrong with a checkpoint's file; "" where it is whole.

    Args:
        path: the file.
        entries: what the checkpoint of a run has at least.
    """
    try:
        with ZipFile(path) as file:
            damaged = file.testzip()  # PyTorch itself does not compare the checksums
        if damaged is not None:
            return f"holds a damaged {damaged}"
        lacking = sorted(entries - read_run_checkpoint(path).keys())
    except Exception as error:  # a broken pickle can raise anything
        reason = str(error) if isinstance(error, BadZipFile | OSError) else refusal_reason(error)
        return f"cannot be read: {reason}"
    return f"is not of a run: it has no {', '.join(lacking)}" if lacking else ""


def _write(content: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(dict(content), file)


def _remove(path: Path) -> None:
    """Delete a file, or the folder that an older version wrote, which is then no part of one."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    part = path if path.suffix == PART else path.with_name(f"{path.name}{PART}")
    if part != path:
        path.rename(part)
    shutil.rmtree(part)
