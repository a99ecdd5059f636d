"""MkDocs hook: formulas become MathML, which a browser shows without a script."""

import html
import re
from typing import Any

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what `pymdownx.arithmatex` marked as a formula."""
    return FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    from latex2mathml.converter import convert  # of the extra "docs"

    return convert(html.unescape(match[3]), display="block" if match[2] == "[" else "inline")
