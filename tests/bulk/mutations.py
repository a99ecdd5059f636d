"""Valid files, changed: as trees of values, and as bytes."""

import copy
from typing import Any

from hypothesis import strategies as st

names = st.text(max_size=20)
# Values at the edges of what readers expect, beside hypothesis' own.
odd = st.sampled_from(
    [None, True, False, 0, -1, 2**31, 2**64, 10**309, 0.5, 1e308, float("nan"), float("inf"),
     "", "a", "1", "0", "\0", "\ud800", "../..", [], {}, [[]], [None], [0, 0, 0, 0], "(1, 2)"]
)  # fmt: skip
leaves = odd | st.integers() | st.floats() | names | st.booleans()
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=5),
    max_leaves=12,
)


def places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value below the root."""
    found = []
    children: Any = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in children:
        found.append((*above, key))
        if isinstance(value, dict | list):
            found += places(value, (*above, key))
    return found


def retyped(value: Any) -> Any:
    """The same value in a neighbouring type."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return float(value) if abs(value) < 2**53 else str(value)
    if isinstance(value, float):
        return int(value) if value == value and abs(value) < 1e300 else str(value)
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list):
        return {str(i): v for i, v in enumerate(value)}
    return [value]


@st.composite
def changed(draw: Any, tree: Any, most: int = 3) -> Any:
    """A tree with 1 to `most` values changed, dropped, duplicated, retyped, nudged or moved."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        found = places(tree)
        if not found:
            break
        *above, key = draw(st.sampled_from(found))
        node = tree
        for part in above:
            node = node[part]
        kind = draw(st.sampled_from(["set", "set", "drop", "twice", "retype", "nudge", "move"]))
        if kind == "set":
            node[key] = copy.deepcopy(draw(values))  # the next change may be inside it
        elif kind == "drop":
            del node[key]
        elif kind == "twice" and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        elif kind == "retype":
            node[key] = retyped(node[key]) if node[key] is not None else "null"
        elif kind == "nudge" and type(node[key]) in (int, float):
            node[key] += draw(st.sampled_from([-1, 1, 0.5, 1000, -1000]))
        elif isinstance(node, dict):
            node[draw(names)] = node.pop(key)
    return tree


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """Bytes of which some are flipped, or the end or a part is cut, doubled or put in."""
    content_ = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(content_) - 1)))
        length = draw(st.integers(1, 40))
        kind = draw(st.sampled_from(["flip", "flip", "flip", "end", "cut", "double", "put"]))
        if kind == "flip" and content_:
            content_[start] ^= draw(st.integers(1, 255))
        elif kind == "end":
            del content_[start:]
        elif kind == "cut":
            del content_[start : start + length]
        elif kind == "double":
            content_[start:start] = content_[start : start + length]
        else:
            content_[start:start] = draw(st.binary(max_size=20))
    return bytes(content_)
