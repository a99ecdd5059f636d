"""MkDocs hook: the page `configuration.md`, made from the source of the two config modules.

A key is an assignment `cfg.SECTION.KEY = default`; its meaning is the comment right above it, which
also holds for the keys that follow it line by line without a comment of their own.
"""

import ast
import html
import re
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    ("Detection", "reviewkd_det/d2/config.py", "add_distill_config"),
    ("Classification", "classification/config.py", "get_config"),
]
PAGE = """# Configuration

Every key of the project with its default and its meaning, read from the source when this page is
built. Set one in a YAML file or as `KEY VALUE` at the end of a command. A misspelt key is refused
with the nearest known one.

For detection these stand beside [Detectron2's own keys][d2], such as `SOLVER.BASE_LR` or
`MODEL.WEIGHTS`.

[d2]: https://detectron2.readthedocs.io/en/latest/modules/config.html#yaml-config-references
"""


class Meaning(NamedTuple):
    """A comment, and the keys with their defaults that it explains."""

    text: str
    keys: dict[str, str]


def read_meanings(source: str, function: str) -> list[Meaning]:
    """Read every key that a function declares.

    Args:
        source: the module's text.
        function: the name of the function.

    Raises:
        ValueError: a key has no comment.
    """
    tree = ast.parse(source)
    (declares,) = (x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == function)
    lines = source.splitlines()
    found: list[Meaning] = []
    last_line = 0  # of the key before
    for node in declares.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
            continue
        default = ast.get_source_segment(source, node.value) or ""
        if default == "CfgNode()":
            continue
        key = ast.unparse(node.targets[0]).removeprefix("cfg.")
        if text := _comment_above(lines, node.lineno):
            found.append(Meaning(text, {}))
        elif last_line != node.lineno - 1:
            raise ValueError(f"config key must have a comment above it; got {key} without")
        found[-1].keys[key] = default
        last_line = node.end_lineno or node.lineno
    return found


def _comment_above(lines: list[str], line_number: int) -> str:
    comment: list[str] = []
    for line in reversed(lines[: line_number - 1]):
        if not line.strip().startswith("#"):
            break
        comment.insert(0, line.strip().lstrip("# "))
    return " ".join(comment)


def make_page() -> str:
    """The whole page, in Markdown."""
    parts = [PAGE]
    for title, path, function in SOURCES:
        meanings = read_meanings((ROOT / path).read_text(encoding="utf-8"), function)
        rows = [
            f"| {_code(keys)} | {_code(keys.values())} | {_escaped(text)} |"
            for text, keys in meanings
        ]
        table = "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])
        parts.append(f"## {title}\n\nDeclared in `{path}`.\n\n{table}\n")
    return "\n".join(parts)


def _code(words: Any) -> str:
    return "<br>".join(f"`{word}`" for word in words)


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_\[\]|])", r"\\\1", html.escape(text, quote=False))


def on_files(files: Any, config: Any) -> Any:
    """Add the page to those that MkDocs found."""
    from mkdocs.structure.files import File  # of the extra "docs"

    files.append(File.generated(config, "configuration.md", content=make_page()))
    return files
