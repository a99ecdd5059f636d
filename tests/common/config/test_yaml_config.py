"""Config files and options: what Detectron2's config does not reach."""

import pytest
from fvcore.common.config import CfgNode

from reviewkd_det.common import merge_file, merge_options


def tree():
    return CfgNode({"A": {"B": 1, "C": (1.0, 2.0)}, "NAME": "x"})


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_later_files_win_and_all_are_listed_in_the_order_of_merging(tmp_path):
    first = write(tmp_path / "base" / "first.yaml", "{A: {B: 2}, NAME: first}")
    second = write(tmp_path / "second.yaml", "_BASE_: base/first.yaml\nNAME: second")
    own = write(tmp_path / "own.yaml", "_BASE_: second.yaml\nA: {C: [3.0, 4.0]}")
    cfg = tree()
    files = merge_file(cfg, own)
    assert cfg == CfgNode({"A": {"B": 2, "C": (3.0, 4.0)}, "NAME": "second"})
    assert [path.resolve() for path, _ in files] == [first, second, own]
    assert [content.get("NAME") for _, content in files] == ["first", "second", None]


def test_of_several_bases_the_last_wins(tmp_path):
    write(tmp_path / "one.yaml", "{A: {B: 2}, NAME: one}")
    write(tmp_path / "two.yaml", "{NAME: two}")
    own = write(tmp_path / "own.yaml", "_BASE_: [one.yaml, two.yaml]")
    cfg = tree()
    assert len(merge_file(cfg, own)) == 3
    assert (cfg.A.B, cfg.NAME) == (2, "two")


def test_one_base_of_two_files_is_no_circle(tmp_path):
    write(tmp_path / "root.yaml", "A: {B: 7}")
    for name in ("one", "two"):
        write(tmp_path / f"{name}.yaml", "_BASE_: root.yaml")
    cfg = tree()
    merge_file(cfg, write(tmp_path / "own.yaml", "_BASE_: [one.yaml, two.yaml]"))
    assert cfg.A.B == 7


def test_an_empty_file_and_no_options_change_nothing(tmp_path):
    cfg = tree()
    own = write(tmp_path / "own.yaml", "{}")
    assert merge_file(cfg, own) == [(own, {})]
    merge_options(cfg, [])
    assert cfg == tree()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"NAME: \xff\xfe", "must be plain YAML; got '.*own.yaml': 'utf-8' codec"),
        (
            b"_BASE_: [1]",
            r"_BASE_ must be a file name or a list of them; got \[1\] in '.*own.yaml'",
        ),
        (b"text", "must be a YAML mapping; got '.*own.yaml': 'text'"),
        (b"A: {B: 2.5}", r"config must have the known types; got .*own.yaml: .*1 vs. 2.5.* A.B"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, content, words):
    (tmp_path / "own.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        merge_file(tree(), tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("opts", "error", "words"),
    [
        (["A.B"], ValueError, "options must be KEY VALUE pairs; got A.B in the test"),
        (["A.B", "2", "NAME"], ValueError, "KEY VALUE pairs; got A.B 2 NAME in the test"),
        (["A.B", "x"], ValueError, "known types; got the test: .*1 vs. x.* A.B"),
        (["A.D", "2"], KeyError, "must be known; got A.D in the test; the nearest is A.[BC]'"),
        (["NAMES", "2"], KeyError, "must be known; got NAMES in the test; the nearest is NAME'"),
    ],
)
def test_bad_options_are_refused(opts, error, words):
    with pytest.raises(error, match=words):
        merge_options(tree(), opts, "the test")


@pytest.mark.parametrize("as_option", [True, False])
def test_a_whole_number_stands_for_a_float_and_nothing_else_does(tmp_path, as_option):
    def merged(value, key="RATE"):
        cfg = CfgNode({"RATE": 0.5, "COUNT": 1})
        if as_option:
            merge_options(cfg, [key, str(value)])
        else:
            merge_file(cfg, write(tmp_path / "own.yaml", f"{key}: {value}"))
        return cfg[key]

    assert (merged(3), type(merged(3))) == (3.0, float)
    assert merged(-2) == -2.0
    for key, value in (("RATE", True), ("COUNT", 3.0), ("COUNT", True), ("RATE", 10**400)):
        with pytest.raises(ValueError, match=f"must have the known types; .*key: {key}"):
            merged(value, key)


def test_another_file_of_weights_drops_the_entry_of_the_first():
    cfg = CfgNode({"A": {"WEIGHTS": "a.pth", "WEIGHTS_ENTRY": "ema"}})
    merge_options(cfg, ["A.WEIGHTS", "b.pth"])
    assert dict(cfg.A) == {"WEIGHTS": "b.pth", "WEIGHTS_ENTRY": ""}
    merge_options(cfg, ["A.WEIGHTS_ENTRY", "net", "A.WEIGHTS", "c.pth"])
    assert dict(cfg.A) == {"WEIGHTS": "c.pth", "WEIGHTS_ENTRY": "net"}
