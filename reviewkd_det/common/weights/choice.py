"""Which of a file's networks is meant: the one order of repairs of detectors and classifiers.

1. The part that `*_ENTRY` names, where it is given.
2. The weights of the role asked for, where the file tells a student and a teacher apart; those of
   the other role alone are refused.
3. What fits the network at all, before what does not.
4. Plain weights before averaged ones.
5. What fits most: by name and shape, then by name.
6. The usual entry, in the order of `USUAL`, before what lies in another one; then what has the
   fewest names besides.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from reviewkd_det.common.weights.foreign import foreign_format
from reviewkd_det.common.weights.parts import Part, describe_parts, list_entries, list_parts

__all__ = ["FoundWeights", "Wanted", "entry_key", "find_weights"]

logger = logging.getLogger(__name__)
USUAL = ("model", "state_dict", "model_state_dict", "model_state", "net", "module", "weights",
         "network", "params", "student", "teacher")  # fmt: skip
FEWEST = 8  # names of a network that does not fit; an adapter has fewer


class Wanted(NamedTuple):
    """What is looked for.

    Args:
        shapes: shapes of the network's weights by name.
        role: "student" or "teacher".
        key: config key that names the file, for sentences.
        entry: entry, prefix or both, joined by dots, that the user names; "" for none.
    """

    shapes: Mapping[str, tuple[int, ...]]
    role: str
    key: str
    entry: str = ""


class FoundWeights(NamedTuple):
    """Weights of a file.

    Args:
        part: the part that was taken.
        inventory: entries and prefixes of the whole file with their numbers of names, for refusals.
    """

    part: Part
    inventory: str

    @property
    def taken(self) -> str:
        """What was taken, at the end of a sentence; "" where there is nothing but that."""
        return f"; taken: {self.part.label}" if self.part.path else ""

    @property
    def names(self) -> str:
        """The file's names and what was taken, at the end of a sentence."""
        return f"; names in the file: {self.inventory}{self.taken}"


def entry_key(key: str) -> str:
    """The config key that chooses a part of the file that another key names."""
    return f"{key}_{'ENTRY' if key.isupper() else 'entry'}"


def find_weights(content: Any, wanted: Wanted, path: str, *, log: bool = True) -> FoundWeights:
    """Find the weights of a network in a file's content, and log what was taken of more.

    Args:
        content: what was read from the file.
        wanted: what is looked for.
        path: the file, for sentences.
        log: whether to log that.

    Raises:
        ValueError: the file holds no arrays by name, not what the user names, the weights of the
            other role alone, several networks that are meant equally well, or a detector of another
            library.
    """
    entries = list_entries(content)
    if not entries:
        raise ValueError(f"{wanted.key} must hold weights by name; got '{path}' with none")
    inventory = describe_parts(entries)
    named = wanted.entry.strip(".* ")
    parts = list_parts(entries, wanted.shapes, named)
    if not parts:
        raise ValueError(
            f"{entry_key(wanted.key)} must name an entry or a prefix of '{path}'; "
            f"got '{wanted.entry}'; it has {inventory}"
        )
    largest = max(len(part.state) for part in parts)
    likely = [x for x in parts if _fitting(x, wanted) or len(x.state) >= min(largest, FEWEST)]
    allowed = likely if named else [x for x in likely if x.role in ("", wanted.role)]
    if not allowed:
        other = ".".join(max(likely, key=lambda part: _rank(part, wanted)).path)
        raise ValueError(
            f"{wanted.key} must hold weights of the {wanted.role}; got '{path}' with "
            f"{inventory}; {entry_key(wanted.key)} {other} takes these"
        )
    ranked = sorted(allowed, key=lambda part: _rank(part, wanted), reverse=True)
    _refuse_equals(ranked, wanted, path)
    found = FoundWeights(ranked[0], inventory)
    if format_ := foreign_format(found.part.state, wanted.shapes):
        raise ValueError(
            f"{wanted.key} must hold weights under the network's own names; got '{path}', which is "
            f"of {format_} and is not converted{found.names}"
        )
    if log:
        _log(found.part, content, entries, wanted, path)
    return found


def _fitting(part: Part, wanted: Wanted) -> set[int]:
    """Identities of the arrays that have the name and the shape of one of the network's."""
    return {
        id(value)
        for name, value in part.state.items()
        if name in wanted.shapes and tuple(value.shape) == tuple(wanted.shapes[name])
    }


def _rank(part: Part, wanted: Wanted) -> tuple[Any, ...]:
    fits, names = len(_fitting(part, wanted)), len(wanted.shapes.keys() & part.state.keys())
    tokens = part.entry.split(".") if part.entry else []
    # A student's average is not the student; a teacher often is one.
    is_own = part.role == wanted.role and not (part.role == "student" and part.is_average)
    usual = next((USUAL.index(token) for token in tokens if token in USUAL), len(USUAL))
    unusual = sum(token not in USUAL for token in tokens)
    return (
        is_own,
        names > 0,
        not part.is_average,
        fits,
        names,
        (-unusual, -usual),
        names - len(part.state) if names else len(part.state),
        len(part.prefix),
    )


def _refuse_equals(ranked: list[Part], wanted: Wanted, path: str) -> None:
    best, *others = ranked
    rank, arrays = _rank(best, wanted), _fitting(best, wanted)
    equal = [
        part
        for part in others
        if _rank(part, wanted)[:7] == rank[:7] and _fitting(part, wanted) != arrays
    ]
    if arrays and equal:
        labels = " and ".join(part.label for part in (best, *equal))
        raise ValueError(
            f"{wanted.key} must hold one network that fits; got '{path}' with {labels}; name one "
            f"in {entry_key(wanted.key)}"
        )


def _log(
    part: Part, content: Any, entries: Mapping[str, dict[str, Any]], wanted: Wanted, path: str
) -> None:
    """Log what was taken and what was left, where the file holds more than plain weights."""
    taken = {id(value) for value in part.state.values()}
    left = {
        entry: {name: value for name, value in state.items() if id(value) not in taken}
        for entry, state in entries.items()
    }
    words = [describe_parts({k: state}, briefly=True) for k, state in left.items() if state]
    tops = {entry.partition(".")[0] for entry in entries}
    if "" not in tops:
        words += [str(key) for key in content if key not in tops]
    if part.path or words:
        logger.info(
            "%s: took %s of '%s', %d names%s",
            wanted.key,
            part.label,
            path,
            len(part.state),
            f"; the file also holds {', '.join(words)}" if words else "",
        )
