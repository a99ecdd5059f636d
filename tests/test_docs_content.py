"""What the documentation says is true: error sentences, keys, numbers and the figure."""

import ast
import html
import re
import runpy
from functools import cache

import pytest
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer

import classification.config
from classification.config_checks import ALIASES as OLD_NAMES
from reviewkd_det.common.distill import ratio
from reviewkd_det.core import LevelScale, find_method
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.config import get_config
from reviewkd_det.d2.keys import ALIASES
from tests.docs_commands import ROOT, blocks

DOCS = ROOT / "docs"


def template(node):
    """A string of the source as a pattern: what is filled in can be anything."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = "".join(str(x.value) if isinstance(x, ast.Constant) else "{}" for x in parts)
    if sum(map(str.isalpha, text)) < 15:
        return None  # it would fit anything
    pattern = re.sub(r"\\{\\}|%(?:s|d|g|\\\.3g)", ".*", re.escape(text))
    return f"{pattern}.*" if text.endswith(" ") else pattern  # something is added to it


@cache
def templates():
    found = set()
    for folder in ("benchmarks", "classification", "demo", "reviewkd_det", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                text = isinstance(node, ast.Constant) and isinstance(node.value, str)
                if text or isinstance(node, ast.JoinedStr):
                    found.add(template(node))
    return re.compile("|".join(found - {None}), re.DOTALL)


SENTENCES = [
    line
    for page in ("troubleshooting.md", "weight.md")
    for _, block in blocks(DOCS / page, "text")
    for line in block.splitlines()
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_quoted_sentence_is_one_of_the_code(sentence):
    assert templates().fullmatch(sentence)


@pytest.mark.parametrize("said", ["teacher must exist", "config key must be right; got X", ""])
def test_a_sentence_that_the_code_does_not_say_is_noticed(said):
    assert not templates().fullmatch(said)


def test_the_weight_page_has_the_codes_numbers_and_advice():
    page = (DOCS / "weight.md").read_text(encoding="utf-8")
    assert f"above {ratio.HIGHEST:g} or below {ratio.LOWEST:g}" in page
    advice = f"MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT, or {find_method('ReviewKD').remedy}"
    assert f"change {advice}\n" in page
    assert LevelScale(1).batches == 10
    assert "over the first ten batches" in page


def configuration():
    return runpy.run_path(str(DOCS / "hooks" / "configuration.py"))


def values(cfg, prefix=""):
    """Every key of a config with its value."""
    found = {}
    for key, value in cfg.items():
        if isinstance(value, dict):
            found |= values(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def test_the_configuration_page_has_every_key_with_its_default():
    page = html.unescape(configuration()["make_page"]()).replace("\\_", "_")
    rows = {}
    for keys, defaults in re.findall(r"^\| (`.*?`) \| (`.*?`) \| .+ \|$", page, re.MULTILINE):
        each = (cell.replace("`", "").split("<br>") for cell in (keys, defaults))
        rows |= dict(zip(*each, strict=True))
    stock = values(get_cfg())
    known = {key: x for key, x in values(get_config()).items() if key not in stock}
    known |= values(classification.config.get_config())
    for old in (*ALIASES, *OLD_NAMES):
        known.pop(old)
    assert set(rows) == set(known)
    for key, value in known.items():
        assert ast.literal_eval(rows[key]) == value, key


def test_a_key_without_a_comment_is_refused():
    source = "def f():\n    # Of a.\n    cfg.A = 1\n    cfg.B = 2\n\n    cfg.C = 3\n"
    read = configuration()["read_meanings"]
    assert read(source.replace("\n\n", "\n"), "f") == [("Of a.", ["A", "B", "C"])]
    with pytest.raises(ValueError, match=r"must have a comment above it; got C without"):
        read(source, "f")


def test_fewer_gpus_change_the_schedule_as_the_page_says():
    cfg = load_config(ROOT / "configs/faster_rcnn_r50_r18.yaml", ["SOLVER.REFERENCE_WORLD_SIZE", 8])
    fewer = DefaultTrainer.auto_scale_workers(cfg, 2)
    solvers = [(x.IMS_PER_BATCH, x.BASE_LR, x.MAX_ITER) for x in (cfg.SOLVER, fewer.SOLVER)]
    assert solvers == [(8, 0.01, 180000), (2, 0.0025, 720000)]
    text = " ".join((DOCS / "multi_gpu.md").read_text(encoding="utf-8").split())
    assert (
        "turns 8 images per batch at a learning rate of 0.01 for 180,000 iterations into 2 images "
        "at 0.0025 for 720,000" in text
    )


def test_the_figure_is_drawn(tmp_path):
    figure = runpy.run_path(str(DOCS / "figures" / "method.py"))
    figure["main"].__globals__["OUTPUT"] = tmp_path / "method.svg"
    figure["main"]()
    assert "<svg" in (tmp_path / "method.svg").read_text()
