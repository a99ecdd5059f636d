"""The states that a run goes on from; each is a folder that is whole or recognised as not."""

import hashlib
import json
import logging
import os
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from accelerate import Accelerator
from accelerate.utils import load
from safetensors import SafetensorError

from reviewkd_det.common.runs.files import sync_folder
from reviewkd_det.common.weights.plain_pickle import refusal_reason

__all__ = ["States"]

logger = logging.getLogger(__name__)
PROGRESS = "progress.json"
SUMS = "SHA256SUMS"
PART = ".part"
BLOCK = 1 << 20  # bytes read at once


class States:
    """Save full states from all processes of a run, and load the last whole one.

    `epoch_N` is the state after N epochs, `epoch_N_step_S` the one after S optimiser steps of the
    epoch that follows. Each holds the digests of its files as `sha256sum --check SHA256SUMS` reads
    them.

    Args:
        folder: of the states; all processes see it.
        accelerator: of this process; what it has prepared is saved.
        keep: so many states, the last ones, are kept.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, keep: int) -> None:
        self.folder = folder
        self.accelerator = accelerator
        self.keep = keep
        self._flawed: list[Path] = []

    def all(self) -> list[Path]:
        """Folders of the states, the latest last."""
        return sorted(self.folder.glob("epoch_[0-9]*[0-9]"))

    @property
    def last(self) -> str:
        """Which one a run would go on from now, in words."""
        good = [path for path in self.all() if path not in self._flawed]
        return f"the last good state is '{good[-1]}'" if good else "there is no good state yet"

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Say in a sentence why a file of the run could not be written, and what is left of it.

        Args:
            path: what is written; the unfinished folder of a state is deleted.

        Raises:
            OSError: the disk is full, or another error while writing.
        """
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            free = shutil.disk_usage(next(p for p in path.absolute().parents if p.exists())).free
            if path.suffix == PART:
                shutil.rmtree(path, ignore_errors=True)
            raise OSError(
                f"'{path}' must be written as a whole; got {_one_line(error)} on a disk with "
                f"{free / 2**20:,.1f} MB free; {self.last}"
            ) from error

    def save(self, progress: dict[str, Any]) -> None:
        """Save everything a run needs to go on, then delete states that are too many.

        Args:
            progress: plain data; `epoch` counts the epochs done, `step` the steps of the next one.

        Raises:
            OSError: a file cannot be written; the earlier states are as they were.
        """
        step = f"_step_{progress['step']:07d}" if progress["step"] else ""
        folder = self.folder / f"epoch_{progress['epoch']:05d}{step}"
        part = folder.with_name(folder.name + PART)
        is_main = self.accelerator.is_main_process
        with self.writing(part):
            if is_main:
                self._remove_parts()
                part.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        with self.writing(part):
            self.accelerator.save_state(str(part), safe_serialization=True)
        self.accelerator.wait_for_everyone()
        with self.writing(part):
            if is_main:
                processes = self.accelerator.num_processes
                text = json.dumps({**progress, "processes": processes})
                (part / PROGRESS).write_text(text, encoding="utf-8")
                self._finish(part, folder)
        self.accelerator.wait_for_everyone()

    def load(self) -> dict[str, Any] | None:
        """Load the last whole state into what the accelerator has prepared.

        A state that is not whole is passed over with a warning.

        Returns:
            Its progress; None where there is no state.

        Raises:
            ValueError: no state is whole, or the last whole one is of another number of processes
                or does not fit what is configured.
        """
        if self.accelerator.is_main_process:
            self._remove_parts()
        flaws: dict[Path, str] = {}
        for path in reversed(self.all()):
            flaw = _find_flaw(path)
            if not flaw:
                for flawed, what in flaws.items():
                    logger.warning("State '%s' %s; going on from '%s'", flawed, what, path)
                self._flawed = list(flaws)
                return self._load(path)
            flaws[path] = flaw
        if flaws:
            shown = "; ".join(f"'{path}', which {flaw}" for path, flaw in flaws.items())
            raise ValueError(
                f"a state must be whole to go on from; got {shown}; start anew with --overwrite"
            )
        return None

    def _load(self, path: Path) -> dict[str, Any]:
        progress = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
        processes = self.accelerator.num_processes
        if progress["processes"] != processes:
            raise ValueError(
                f"run must go on in as many processes as saved '{path}', {progress['processes']}; "
                f"got {processes}"
            )
        try:
            # Which load_state passes over where it cannot be read.
            load(path / f"random_states_{self.accelerator.process_index}.pkl")
            self.accelerator.load_state(str(path))
        except Exception as error:  # whatever the readers of several formats raise
            raise ValueError(
                f"state must be of the configured networks and precision; got '{path}': "
                + (refusal_reason if isinstance(error, UnpicklingError) else _one_line)(error)
            ) from error
        return progress

    def _finish(self, part: Path, folder: Path) -> None:
        """Put all files of a state on the disk before it takes its name."""
        sums = "".join(f"{_digest(file)}  {file.name}\n" for file in sorted(part.iterdir()))
        (part / SUMS).write_text(sums, encoding="utf-8")
        for file in part.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(part)
        if folder.exists():  # not whole, or the run would have gone on from it
            _remove(folder)
        part.rename(folder)
        sync_folder(self.folder)
        for flawed in self._flawed:
            if flawed != folder and flawed.exists():
                _remove(flawed)
        self._flawed = []
        for old in self.all()[: -self.keep]:
            _remove(old)

    def _remove_parts(self) -> None:
        """Delete what a killed process left of a state."""
        for part in self.folder.glob(f"*{PART}"):
            shutil.rmtree(part)


def _find_flaw(path: Path) -> str:
    """What is wrong with a state's files; '' where nothing is."""
    try:
        lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        names = {file.name for file in path.iterdir()} - {SUMS}
        if lacking := sorted(sums.keys() - names) or sorted({PROGRESS} - names):
            return f"lacks {', '.join(lacking)}"
        if foreign := sorted(names - sums.keys()):
            return f"holds {', '.join(foreign)}, which {SUMS} does not name"
        changed = [name for name in sorted(names) if _digest(path / name) != sums[name]]
        return f"holds a truncated or changed {', '.join(changed)}" if changed else ""
    except (OSError, UnicodeDecodeError) as error:
        return f"has no readable content: {_one_line(error)}"


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _remove(folder: Path) -> None:
    """Delete a state; a process that is killed meanwhile leaves no part of it under its name."""
    part = folder.with_name(folder.name + PART)
    folder.rename(part)
    shutil.rmtree(part)


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__
