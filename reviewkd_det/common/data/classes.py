"""Lists of class names: the same, or mapped by name."""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

from reviewkd_det.common.console.errors import listed

__all__ = ["describe_classes", "map_classes", "require_same_classes"]

SHOWN = 12  # names of a list in a sentence


def map_classes(
    names: Sequence[str], onto: Sequence[str], *, whose: str, onto_whose: str
) -> list[int]:
    """Find each class of one list in another, by name.

    Args:
        names: class names to find, in the order of their class numbers.
        onto: class names among which they are looked for; it may have more.
        whose: whose names these are, for the error sentence, such as "the student".
        onto_whose: whose the other names are.

    Returns:
        For each of `names` its position in `onto`.

    Raises:
        ValueError: a name is missing there, or stands twice in either list; with both lists.
    """
    both = f"got {describe_classes(names)} of {whose} and {describe_classes(onto)} of {onto_whose}"
    for owner, own in ((whose, names), (onto_whose, onto)):
        if twice := [repr(name) for name, count in Counter(own).items() if count > 1]:
            raise ValueError(
                f"classes mapped by name must have different names; {owner} has {listed(twice)} "
                f"twice; {both}"
            )
    positions = {name: position for position, name in enumerate(onto)}
    if missing := [name for name in names if name not in positions]:
        raise ValueError(
            f"every class of {whose} must be one of {onto_whose}; {both}; missing: "
            f"{listed([_with_nearest(name, onto) for name in missing])}"
        )
    return [positions[name] for name in names]


def require_same_classes(
    names: Sequence[str], known: Sequence[str], *, whose: str, known_whose: str, fix: str
) -> None:
    """Compare two lists of class names, whose order is that of the class numbers.

    Args:
        names: class names to compare.
        known: what they must be.
        whose: whose names these are, for the error sentence, such as "data set 'val'".
        known_whose: whose the other names are.
        fix: what to do where they differ.

    Raises:
        ValueError: they differ in names or order; with both lists.
    """
    if list(names) != list(known):
        raise ValueError(
            f"classes of {whose} must be those of {known_whose}, in the same order; got "
            f"{_compared(names, known)}; {fix}"
        )


def describe_classes(names: Sequence[str]) -> str:
    """A list of class names as sentences show it; a long one is cut and counted."""
    if len(names) <= SHOWN:
        return str(list(names))
    shown = ", ".join(map(repr, names[:SHOWN]))
    return f"[{shown}, ...] ({len(names)})"


def _compared(names: Sequence[str], known: Sequence[str]) -> str:
    lists = f"{describe_classes(names)} instead of {describe_classes(known)}"
    if max(len(names), len(known)) <= SHOWN:
        return lists
    pairs = enumerate(zip(names, known, strict=False))
    first = next((f"; class {i} is {a!r} instead of {b!r}" for i, (a, b) in pairs if a != b), "")
    return lists + first


def _with_nearest(name: str, onto: Sequence[str]) -> str:
    nearest = get_close_matches(name.lower(), [other.lower() for other in onto], 1)
    found = [other for other in onto if other.lower() in nearest]
    return f"{name!r} (the nearest is {found[0]!r})" if found else repr(name)
