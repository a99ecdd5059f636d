"""What a resumed run is asked for that it did not begin with: what holds, and what cannot.

The optimiser's own numbers come back with the checkpoint, so another value in the config is never
used; the config that is saved then names the one that is.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviewkd_det.common.config.nested import flat
from reviewkd_det.common.config.plain_yaml import read_plain_yaml

__all__ = ["ResumeRules", "Settled", "saved_config", "settle_changes"]

ABSENT = object()
EMPTY: tuple[Any, ...] = (None, "", [])  # ways in which a key names nothing


@dataclass(frozen=True)
class ResumeRules:
    """Which keys of a config a resumed run may change; a key stands for all below it as well.

    Args:
        kept: keys whose values come back with the checkpoint.
        fixed: keys of the teacher and the training data.
        unused: keys that say nothing of the training, such as the output folder.
        allow: key that lets a run go on with other values of the fixed keys.
    """

    kept: tuple[str, ...]
    fixed: tuple[str, ...]
    unused: tuple[str, ...]
    allow: str


@dataclass(frozen=True)
class Settled:
    """What came of the changes.

    Args:
        kept: by key the value that the run keeps, where the config has another.
        warning: one sentence on all changes; empty where there are none.
        changed: keys whose new values hold.
    """

    kept: Mapping[str, Any]
    warning: str
    changed: tuple[str, ...]


def saved_config(folder: str | Path) -> Any:
    """The config that a run's folder holds, as plain data; empty where it has none."""
    path = Path(folder, "config.yaml")
    return read_plain_yaml(path) if path.is_file() else {}


def settle_changes(saved: Any, now: Any, rules: ResumeRules) -> Settled:
    """Compare the config of a run that goes on with the one that it began with.

    Args:
        saved: config of the run, nested mappings; keys that it lacks are not compared.
        now: config that is asked for, nested mappings.
        rules: what may change.

    Raises:
        ValueError: a fixed key has another value, and `allow` is not set.
    """
    before, after = _values(saved), _values(now)
    # A run of an older version lacks keys; what it did not name of teacher and data was nothing.
    before |= {key: "" for key in after if key not in before and _below(key, rules.fixed)}
    changes = {
        key: (before[key], value)
        for key, value in after.items()
        if not _below(key, rules.unused) and not _same(before.get(key, ABSENT), value)
    }
    fixed = {key: values for key, values in changes.items() if _below(key, rules.fixed)}
    if fixed and not after.get(rules.allow):
        key, (was, value) = next(iter(fixed.items()))
        raise ValueError(
            f"{key} must be that of the run to resume, {was!r}; got {value!r}; set {rules.allow} "
            "True to go on nonetheless, or take another OUTPUT_DIR"
        )
    kept = {key: was for key, (was, _) in changes.items() if _below(key, rules.kept)}
    holds = {key: values for key, values in changes.items() if key not in kept}
    parts = []
    if holds:
        shown = (f"{key} {value!r} (was {was!r})" for key, (was, value) in holds.items())
        parts.append(f"from now on {', '.join(shown)}")
    if kept:
        shown = (f"{key} {was!r} (not {changes[key][1]!r})" for key, was in kept.items())
        parts.append(f"as in the checkpoint {', '.join(shown)}")
    warning = f"--resume with other settings than before: {'; '.join(parts)}" if parts else ""
    return Settled(kept, warning, tuple(holds))


def _values(tree: Any) -> dict[str, Any]:
    return {key: _plain(x) for key, x in flat(tree).items()} if isinstance(tree, Mapping) else {}


def _plain(value: Any) -> Any:
    """A value with tuples as lists, as YAML has them."""
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _same(before: Any, now: Any) -> bool:
    """Whether two values are equal; a path may be written in two ways."""
    if before is ABSENT or (before == "" and not now) or (before in EMPTY and now in EMPTY):
        return True
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_same, before, now))
    if isinstance(before, str) and isinstance(now, str):
        return before == now or bool(before and now and _path(before) == _path(now))
    return bool(before == now)


def _path(text: str) -> str:
    return os.path.realpath(os.path.expanduser(text))


def _below(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
