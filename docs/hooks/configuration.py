"""MkDocs hook: the page `configuration.md`, from the modules of keys and the methods' settings.

A key is an assignment `cfg.SECTION.KEY = default`; its meaning is the comment right above it, which
also holds for the keys that follow it line by line without a comment of their own.
"""

import ast
import dataclasses
import html
import re
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    (
        "Detection",
        "reviewkd_det/d2/keys.py",
        ("add_distill_config", "add_run_config", "add_backbone_config"),
    ),
    ("Classification", "classification/config.py", ("get_config",)),
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
    """A comment, and the keys that it explains."""

    text: str
    keys: list[str]


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
        if ast.get_source_segment(source, node.value) == "CfgNode()":
            continue
        key = ast.unparse(node.targets[0]).removeprefix("cfg.")
        if text := _comment_above(lines, node.lineno):
            found.append(Meaning(text, []))
        elif last_line != node.lineno - 1:
            raise ValueError(f"config key must have a comment above it; got {key} without")
        found[-1].keys.append(key)
        last_line = node.end_lineno or node.lineno
    return found


def _comment_above(lines: list[str], line_number: int) -> str:
    comment: list[str] = []
    for line in reversed(lines[: line_number - 1]):
        if not line.strip().startswith("#"):
            break
        comment.insert(0, line.strip().lstrip("# "))
    return " ".join(comment)


DECAY_SHARE = (
    "Part of the training over which the weight falls linearly to 0, in the place of a number; 0: "
    "it does not fall; auto: two thirds with LOSS_WEIGHT auto, else 0."
)


def method_rows(config: Any, uses: Any, section: str, lengths: Mapping[str, str]) -> list[str]:
    """The rows of the methods' own nodes, from their settings.

    Args:
        config: config that declares the nodes.
        uses: which defaults are the customer's, as `declare_methods` takes them.
        section: the config section that holds the nodes.
        lengths: names of the settings of warm-up and decay, with their meanings.
    """
    from reviewkd_det.common.config.methods import declared_fields
    from reviewkd_det.core import registered_methods

    rows = []
    for name, method in registered_methods().items():
        defaults = declared_fields(method.Settings, uses)
        fields = {x.name: x.metadata["meaning"] for x in dataclasses.fields(method.Settings)}
        for field, default in defaults.items():
            each = ", ".join(
                f"{method.Settings.default(field, use)} ({use[0].replace('_', ' ')})"
                for use in uses
            )
            meaning = fields[field] + (f" By default {each}." if default is None else "")
            key = f"{section}.{name.upper()}.{field.upper()}"
            rows.append(_row([key], [repr(default)], meaning))
        node = f"{section}.{name.upper()}"
        keys = {f"{node}.{word}": meaning for word, meaning in lengths.items()}
        rows += [_row([key], [_value(config, key)], meaning) for key, meaning in keys.items()]
    return rows


def make_page() -> str:
    """The whole page, in Markdown."""
    from classification.config import get_config as classification_config
    from classification.config_checks import CUSTOMER
    from reviewkd_det.d2.config import get_config as detection_config
    from reviewkd_det.d2.keys import USES

    customers = {
        "Detection": (
            detection_config(),
            USES,
            "MODEL.DISTILL",
            {
                "WARMUP_ITERS": "Iterations over which the weight grows linearly from 0.",
                "DECAY_ITERS": "Iteration, counted from 0, at which the weight, which falls "
                "linearly from the start, is 0; 0: it does not fall.",
                "DECAY_SHARE": DECAY_SHARE,
            },
        ),
        "Classification": (
            classification_config(),
            [CUSTOMER.uses],
            "DISTILL",
            {
                "WARMUP_EPOCHS": "Epochs over which the weight grows linearly from 0.",
                "DECAY_EPOCHS": "Epoch, counted from 1, at which the weight, which falls linearly "
                "from the start, is 0; 0: it does not fall.",
                "DECAY_SHARE": DECAY_SHARE,
            },
        ),
    }
    parts = [PAGE]
    for title, path, functions in SOURCES:
        config, uses, section, lengths = customers[title]
        source = (ROOT / path).read_text(encoding="utf-8")
        meanings = [meaning for name in functions for meaning in read_meanings(source, name)]
        rows = [_row(keys, [_value(config, key) for key in keys], text) for text, keys in meanings]
        own = method_rows(config, uses, section, lengths)
        parts.append(f"## {title}\n\nDeclared in `{path}`.\n\n{_table(rows)}\n")
        parts.append(
            f"### {title}: the methods\n\nDeclared by the settings of each method, in "
            f"`reviewkd_det/core/methods`.\n\n{_table(own)}\n"
        )
    return "\n".join(parts)


def _value(config: Any, key: str) -> str:
    return repr(reduce(lambda node, part: node[part], key.split("."), config))


def _table(rows: list[str]) -> str:
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _row(keys: Any, defaults: Any, text: str) -> str:
    return f"| {_code(keys)} | {_code(defaults)} | {_escaped(text)} |"


def _code(words: Any) -> str:
    return "<br>".join(f"`{word}`" for word in words)


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_\[\]|])", r"\\\1", html.escape(text, quote=False))


def on_files(files: Any, config: Any) -> Any:
    """Add the page to those that MkDocs found."""
    from mkdocs.structure.files import File  # of the extra "docs"

    files.append(File.generated(config, "configuration.md", content=make_page()))
    return files
