"""States as earlier versions wrote them: folders of accelerate's files and their digests."""

import hashlib
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import load

__all__ = ["PROGRESS", "SUMS", "find_folder_flaw", "load_folder"]

PROGRESS = "progress.json"
SUMS = "SHA256SUMS"


def find_folder_flaw(path: Path) -> str:
    """What is wrong with a state's files; "" where nothing is."""
    try:
        lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        names = {file.name for file in path.iterdir()} - {SUMS}
        if lacking := sorted(sums.keys() - names) or sorted({PROGRESS} - names):
            return f"lacks {', '.join(lacking)}"
        if foreign := sorted(names - sums.keys()):
            return f"holds {', '.join(foreign)}, which {SUMS} does not name"
        digests = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}
        changed = [name for name in sorted(names) if digests[name] != sums[name]]
        return f"holds a truncated or changed {', '.join(changed)}" if changed else ""
    except (OSError, UnicodeDecodeError) as error:
        return f"has no readable content: {error}"


def load_folder(path: Path, accelerator: Accelerator) -> None:
    """Load a state into what the accelerator has prepared."""
    # Which load_state passes over where it cannot be read.
    load(path / f"random_states_{accelerator.process_index}.pkl")
    accelerator.load_state(str(path))
