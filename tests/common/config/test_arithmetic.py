"""The one literal of Detectron2's configs that asks for `eval` is arithmetic, and read as data."""

import pytest
import yaml
from fvcore.common.config import CfgNode

from reviewkd_det.common import merge_file
from reviewkd_det.common.config.arithmetic import evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 - 8 / 4", 5.0),
        ("-(2 ** 3) // 3 + 7 % 4", 0),
        ("[x * y for x in [1, 2] for y in range(2)]", [0, 1, 0, 2]),
        ("[[y, x] for x, in [[1]]]", None),
        ("[[x, x * 2**(1.0/2) ] for x in [2, 8 ]]", [[2, 2 * 2**0.5], [8, 8 * 2**0.5]]),
        ("[int(x * 0.1 * 640) for x in range(5, 8)]", [320, 384, 448]),
        ("[round(x) for x in (1.4, float(2))]", [1, 2]),
    ],
)
def test_arithmetic_is_worked_out(text, value):
    if value is None:
        with pytest.raises(ValueError, match="must be arithmetic"):
            evaluate(text)
    else:
        assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()",
        "open('/etc/passwd')",
        "().__class__",
        "[x for x in [1] if x]",
        "lambda: 1",
        "'a' * 9",
        "[0] * 9",
        "True",
        "x",
        "int(x=1)",
        "1 << 9",
        "9 ** 9 ** 9",
        "range(10 ** 9)",
        "[x for x in range(9999) for y in range(9999)]",
        "1 / 0",
        "(-1) ** 0.5",
        "1e999",
        "(",
        "1" * 2000,
        "",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="an eval of a config must be arithmetic; got "):
        evaluate(text)


def test_a_config_and_its_base_may_have_it_and_nothing_else_changes(tmp_path):
    tag = "!!python/object/apply"
    (tmp_path / "base.yaml").write_text(f'A: {tag}:eval ["[2 * x for x in [1, 2]]"]\n')
    (tmp_path / "own.yaml").write_text(f"_BASE_: base.yaml\nB: {tag}:builtins.eval ['1 / 4']\n")
    cfg = CfgNode({"A": [0], "B": 0.0})
    files = merge_file(cfg, tmp_path / "own.yaml")
    assert cfg == CfgNode({"A": [2, 4], "B": 0.25})
    assert files[0][1] == {"A": [2, 4]}
    for text in (f"A: {tag}:os.getcwd []", f"A: {tag}:eval ['dir()']", f"A: {tag}:eval ['1', '2']"):
        (tmp_path / "own.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"must be plain YAML; got '.*own.yaml'"):
            merge_file(cfg, tmp_path / "own.yaml")
    with pytest.raises(yaml.constructor.ConstructorError):  # elsewhere it stays what it is
        yaml.safe_load(f"{tag}:eval ['1']")
