"""The networks that a checkpoint file holds: in which entry, and under which prefix of names.

Training programs keep weights in entries (`model`, `state_dict`, `ema_state_dict`) and wrap
networks in others, which lengthens their names (`module.`, `_orig_mod.`, `student.`). A part is
what one entry holds under one prefix, with its names shortened by that.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = ["Part", "describe_parts", "list_entries", "list_parts"]

STUDENT, TEACHER = "student", "teacher"
# Words of the names that wrappers have, and of those that mean an average over training.
WRAPPERS = {
    "module",
    "modules",
    "model",
    "models",
    "net",
    "network",
    "orig",
    "mod",
    "fsdp",
    "wrapped",
    "checkpoint",
    "detector",
    "state",
    "dict",
    "weights",
    STUDENT,
    TEACHER,
}
AVERAGES = {"ema", "swa", "averaged", "avg", "shadow"}
# Inside a name too, where only a part of a network was wrapped.
INNER = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"}
# Entries that hold arrays by name and no network.
NO_WEIGHTS = re.compile("optim|.*sched|.*scaler|callback|loops|hyper|trainer|random|rng")
DEPTH = 3  # of entries in entries
LONGEST = 5  # tokens of a prefix


class Part(NamedTuple):
    """What an entry of a file holds under a prefix.

    Args:
        entry: name of the entry, dotted where entries are nested; "" is the file itself.
        prefix: what all names began with, dot included; "" for nothing.
        state: arrays by their names without the prefix.
    """

    entry: str
    prefix: str
    state: dict[str, Any]

    @property
    def path(self) -> list[str]:
        """The tokens of entry and prefix."""
        return [token for token in f"{self.entry}.{self.prefix}".split(".") if token]

    @property
    def role(self) -> str:
        """Whose weights these are by their names: "student", "teacher" or ""."""
        return next((role for token in reversed(self.path) if (role := _role(token))), "")

    @property
    def is_average(self) -> bool:
        """Whether the names say that weights were averaged over training."""
        return any(AVERAGES & set(_words(token)) for token in self.path)

    @property
    def label(self) -> str:
        """The part in a sentence."""
        where = f"entry '{self.entry}'" if self.entry else ""
        under = f"prefix '{self.prefix}'" if self.prefix else ""
        return " ".join(filter(None, (where, under))) or "the file itself"


def list_entries(content: Any) -> dict[str, dict[str, Any]]:
    """The arrays by name in a file's content and in its entries, each under the entry's name."""
    return dict(_walk(content, "", DEPTH))


def list_parts(
    entries: Mapping[str, Mapping[str, Any]], wanted: Collection[str], named: str = ""
) -> list[Part]:
    """Every part that may be meant.

    A prefix is one that wrappers make, the one that is asked for, or any under which most names
    are those of the network.

    Args:
        entries: arrays by name, from `list_entries`.
        wanted: names of the network's weights.
        named: entry, prefix or both, joined by dots, to take; "" for any.
    """
    asked = [token for token in named.split(".") if token]
    parts = []
    for entry, state in entries.items():
        own = _after(entry.split("."), asked)
        for prefix in sorted(_prefixes(state, wanted, own)):
            part = Part(entry, prefix, _under(state, prefix, wanted))
            if part.state and _contains(part.path, asked):
                parts.append(part)
    return parts


def describe_parts(entries: Mapping[str, Mapping[str, Any]], *, briefly: bool = False) -> str:
    """Every entry with its prefixes, and how many names each has, the most first.

    Args:
        entries: arrays by name, from `list_entries`.
        briefly: whether only the number of names stands for what is not wrapped.
    """
    found, most = [], 8
    for entry, state in entries.items():
        wrapped = Counter(_prefix(_chain(name)) for name in state)
        if set(wrapped) == {""} and briefly:
            found.append(f"{entry or 'no prefix'} {len(state)}")
            continue
        if set(wrapped) == {""}:  # the parts of the network
            wrapped = Counter(name.partition(".")[0] + "." * ("." in name) for name in state)
        counts = wrapped.most_common()
        more = [f"{len(counts) - most} more"] if len(counts) > most else []
        words = ", ".join([f"{prefix or 'no prefix'} {n}" for prefix, n in counts[:most]] + more)
        found.append(f"{entry} ({words})" if entry else words)
    return "; ".join(found)


def _walk(content: Any, name: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(content, Mapping) or depth < 0:
        return
    own = {str(k): v for k, v in content.items() if _is_array(v)}
    inner: list[tuple[str, dict[str, Any]]] = []
    for key, value in content.items():
        if isinstance(key, str) and not NO_WEIGHTS.match(key.lower()):
            inner += _walk(value, f"{name}.{key}" if name else key, depth - 1)
    # Arrays beside larger entries are results, such as the best accuracy.
    if len(own) > max((len(state) for _, state in inner), default=0):
        yield name, own
    yield from inner


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _words(token: str) -> list[str]:
    """`modelTeacher` and `model_teacher` as words."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", token)]


def _role(token: str) -> str:
    words = _words(token)
    short = {"s": STUDENT, "t": TEACHER}.get(words[-1] if len(words) > 1 else "", "")
    if short and set(words[:-1]) <= WRAPPERS:  # model_t
        return short
    return next((role for role in (TEACHER, STUDENT) if role in words), "")


def _chain(name: str) -> list[str]:
    """The leading tokens of a name that wrappers make."""
    chain = []
    for token in name.split(".")[:-1]:
        words = set(_words(token))  # none of a number
        if not words or not (_role(token) or words <= WRAPPERS | AVERAGES):
            break
        chain.append(token)
    return chain


def _after(entry: list[str], asked: list[str]) -> list[str]:
    """What remains of the tokens that are asked for, after those that name an entry."""
    return asked[len(entry) :] if asked[: len(entry)] == entry else asked


def _contains(path: list[str], asked: list[str]) -> bool:
    return any(path[i : i + len(asked)] == asked for i in range(len(path) - len(asked) + 1))


def _prefixes(state: Mapping[str, Any], wanted: Collection[str], asked: list[str]) -> set[str]:
    found, fitting, total = {""}, Counter[str](), Counter[str]()
    for name in state:
        tokens, chain = name.split("."), _chain(name)
        found |= {_prefix(chain[:end]) for end in range(1, len(chain) + 1)}
        for end in range(1, min(len(tokens), LONGEST + 1)):
            prefix = _prefix(tokens[:end])
            total[prefix] += 1
            fitting[prefix] += name[len(prefix) :] in wanted
            if asked and tokens[max(0, end - len(asked)) : end] == asked:
                found.add(prefix)
    return found | {prefix for prefix, count in fitting.items() if 2 * count >= total[prefix]}


def _prefix(tokens: list[str]) -> str:
    return "".join(f"{token}." for token in tokens)


def _under(state: Mapping[str, Any], prefix: str, wanted: Collection[str]) -> dict[str, Any]:
    """The arrays under a prefix that belong to no further student, teacher or average."""
    found = {}
    for name, value in state.items():
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix) :]
        further = Part("", _prefix(_chain(rest)), {})
        if rest in wanted or not (further.role or further.is_average):
            found[_without_wrappers(rest, wanted)] = value
    return found


def _without_wrappers(name: str, wanted: Collection[str]) -> str:
    if name in wanted:
        return name
    bare = ".".join(token for token in name.split(".") if token not in INNER)
    return bare if bare in wanted else name
