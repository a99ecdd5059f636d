"""Config files, random and mutated: each is read into the declared types, or refused."""

import pytest
import yaml
from fvcore.common.config import CfgNode
from hypothesis import strategies as st

from classification.config import get_config
from classification.config import load_config as load_classification
from reviewkd_det.common import merge_file, merge_options
from reviewkd_det.common.config.nested import flat
from reviewkd_det.d2.config import get_config as get_detection_config
from reviewkd_det.d2.runs.yaml_config import load_run_config
from tests.bulk.mutations import changed, damaged, leaves, names, values
from tests.bulk.outcomes import counts, in_bulk, outcome

BASE = "BASE.yaml"


def load_detection(path):
    return load_run_config(str(path), [])


PACKAGES = {
    "detection": (load_detection, get_detection_config),
    "classification": (load_classification, get_config),
}
# What recipes set, of each package.
TREES = {
    "detection": {
        "_BASE_": BASE,
        "VERSION": 2,
        "MODEL": {
            "META_ARCHITECTURE": "DistilledDetector",
            "WEIGHTS": "",
            "DEVICE": "cpu",
            "DISTILL": {
                "METHODS": ["ReviewKD", "DKD"],
                "TEACHER": {"CONFIG_FILE": "", "OPTS": ["MODEL.MASK_ON", "True"]},
                "REVIEWKD": {"LOSS_WEIGHT": 1.2, "WARMUP_ITERS": 10, "IN_FEATURES": ["p2", "p3"]},
            },
        },
        "DATASETS": {"TRAIN": ["coco_2017_train"], "IMAGE_FOLDERS": [], "COCO_FORMAT": []},
        "SOLVER": {"STEPS": [60, 80], "BASE_LR": 0.01, "WEIGHT_DECAY_BIAS": None},
    },
    "classification": {
        "_BASE_": BASE,
        "MODEL": {"NAME": "resnet8"},
        "TEACHER": {"NAME": "resnet20", "WEIGHTS": "last.pth", "MEAN": [0.5, 0.5, 0.5]},
        "DISTILL": {"METHODS": "('ReviewKD',)", "REVIEWKD": {"WARMUP_EPOCHS": 2.0}},
        "DATA": {"TRAIN_IMAGES": 100},
        "INPUT": {"STD": [0.2, 0.2, 0.3]},
        "SOLVER": {"EPOCHS": 60, "SCHEDULE": "cosine", "MILESTONES": [1, 2], "LR": 0.1},
        "OUTPUT_DIR": "output",
    },
}
# Tags and forms that PyYAML makes something else of, or fails on with errors of others.
ODD_YAML = [
    "", "# nothing\n", "---", "{}\n---\n{}", "a: &a [*a]", "SOLVER: &a {SOLVER: *a}", "? [1]\n: 2",
    "SOLVER: !!timestamp x", "SEED: !!int x", "SEED: !!bool x", "SEED: 0x_", "SEED: 2020-13-45",
    "SEED: 2020-01-01", "SEED: !!binary x", "SEED: !!set {a}", "SEED: !!python/tuple [1]", "1: 2",
    "_BASE_: [" + "[" * 2000, "_BASE_: ~nobody/x.yaml", "_BASE_: null", "_BASE_: own.yaml",
    "VERSION: 1", "VERSION: 0", "VERSION: -7", "VERSION: true", "SEED: " + "1" * 5000,
    "SEED: '" + "-" * 5000 + "1'", "SEED: '{[]: 1}'", "MODEL: {}", "MODEL: null", "MODEL: []",
    "<<: [1]", "<<: {SEED: 1}", "SEED: 1\nSEED: 2", "\tSEED: 1", "SEED: 1j", "'': 1", "\0",
    "null: 1",
]  # fmt: skip


def as_yaml(tree):
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", errors="surrogatepass")


def keys_of(package):
    return st.sampled_from(sorted(flat(PACKAGES[package][1]())))


@st.composite
def some_keys(draw, package):
    """A tree that sets known keys to any values."""
    tree = {}
    for key in draw(st.lists(keys_of(package), min_size=1, max_size=4, unique=True)):
        *above, name = key.split(".")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[name] = draw(leaves | values)
    return tree


def cases(kind, package):
    return {
        "mutated": changed(TREES[package]).map(as_yaml),
        "known keys": some_keys(package).map(as_yaml),
        "random": values.map(as_yaml)
        | st.dictionaries(names | st.just("MODEL"), values, max_size=3).map(as_yaml)
        | st.text(alphabet="ab:-[]{}&*!|>'\"#%@`, \n\t01.~?", max_size=60).map(str.encode)
        | st.sampled_from(ODD_YAML).map(str.encode)
        | st.binary(max_size=100),
        "damaged": damaged(as_yaml(TREES[package])),
    }[kind]


def check_types(cfg, defaults):
    """Every declared key is there and has the type of its default, where that is not None.

    A weight or a score is a word or a number, and a number may be a whole one.
    """
    found, declared = flat(cfg), flat(defaults)
    assert found.keys() == declared.keys()
    for key, default in declared.items():
        is_free = key.endswith((".LOSS_WEIGHT", ".DECAY_SHARE", ".SCORE"))
        kinds = (str, int, float) if is_free else (type(default),)
        assert default is None or type(found[key]) in kinds, key


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / BASE).write_text("SEED: 3\n")
    return tmp_path


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("kind", ["mutated", "known keys", "random", "damaged"])
@counts(full=500, fast=50)
def test_a_config_is_read_or_refused(folder, kind, package, count):
    load, defaults = PACKAGES[package]
    path = folder / "own.yaml"

    def judge(content):
        path.write_bytes(content)
        loaded = []
        result = outcome(lambda: loaded.append(load(path)), folder)
        if result == "accepted":
            check_types(loaded[0], defaults())
        return result

    assert in_bulk(count, cases(kind, package), judge)["refused"]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("text", ODD_YAML, ids=lambda text: repr(text[:20]))
def test_an_odd_file_is_read_or_refused(folder, text, package):
    (folder / "own.yaml").write_text(text)
    outcome(lambda: PACKAGES[package][0](folder / "own.yaml"), folder)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_unchanged_tree_is_read(folder, package):
    (folder / "own.yaml").write_bytes(as_yaml(TREES[package]))
    load, defaults = PACKAGES[package]
    check_types(load(folder / "own.yaml"), defaults())


def tree():
    return CfgNode({"A": {"B": 1, "C": (1.0,)}, "NAME": "x", "FREE": None})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a YAML mapping; got '.*own.yaml': nothing"),
        ("# only a comment\n", "must be a YAML mapping; got '.*own.yaml': nothing"),
        ("A: 2020-13-45", "must be plain YAML; got '.*own.yaml': month must be in"),
        ("A: !!timestamp x", "must be plain YAML; got '.*own.yaml': 'NoneType'"),
        ("A: &a {A: *a}", "must have the known types; got .*own.yaml: .*recursion"),
        ("A: {B: null}", "A.B must be of type int; got None in .*own.yaml"),
    ],
)
def test_what_readers_stumble_over_is_named(tmp_path, text, words):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        merge_file(tree(), path)


def test_a_home_folder_that_nobody_has_is_a_missing_file(tmp_path):
    (tmp_path / "own.yaml").write_text("_BASE_: ~nobody_at_all/x.yaml")
    with pytest.raises(FileNotFoundError, match=r"got '.*~nobody_at_all/x.yaml', which .*own.yaml"):
        merge_file(tree(), tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["A", {}], "option must name one key of a section; got 'A' in the test"),
        ([1, 2], "option must name one key of a section; got 1 in the test"),
        (["A.C", "None"], "A.C must be of type tuple; got None in the test"),
    ],
)
def test_options_that_are_no_keys_are_named(opts, words):
    with pytest.raises(ValueError, match=words):
        merge_options(tree(), opts, "the test")


def test_a_key_without_a_type_may_stay_without():
    cfg = tree()
    merge_options(cfg, ["FREE", "None"])
    assert cfg.FREE is None
