from pathlib import Path

import pytest
from detectron2.config import get_cfg

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.config import get_config, plain_config
from reviewkd_det.d2.exporting.config import foreign_parts
from reviewkd_det.d2.teacher.zoo import find_teacher_config
from tests.d2 import tiny

ROOT = Path(__file__).resolve().parents[2]
KEY = "MODEL.DISTILL.TEACHER.CONFIG_FILE"


def keys(cfg, prefix=""):
    for key, value in cfg.items():
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_plain_config_has_exactly_detectron2s_keys():
    cfg = get_config()
    cfg.MODEL.META_ARCHITECTURE = "DistilledDetector"
    cfg.MODEL.DISTILL.STUDENT_META_ARCHITECTURE = "RetinaNet"
    plain = plain_config(cfg)
    assert set(keys(plain)) == set(keys(get_cfg()))
    assert plain.MODEL.META_ARCHITECTURE == "RetinaNet"
    get_cfg().merge_from_other_cfg(plain)


def test_a_relative_teacher_is_found_beside_the_file_that_names_it(tmp_path):
    (tmp_path / "base").mkdir()
    tiny.write(tmp_path / "base" / "teacher.yaml", {"VERSION": 2})
    named = {"MODEL": {"DISTILL": {"TEACHER": {"CONFIG_FILE": "teacher.yaml"}}}, "VERSION": 2}
    tiny.write(tmp_path / "base" / "student.yaml", named)
    tiny.write(tmp_path / "child.yaml", {"_BASE_": "base/student.yaml"})
    cfg = load_config(tmp_path / "child.yaml")
    assert Path(cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE) == tmp_path / "base" / "teacher.yaml"
    cfg = load_config(tmp_path / "child.yaml", [KEY, "other.yaml"])
    assert cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE == "other.yaml"


def test_a_zoo_name_is_found():
    name = "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml"
    assert load_config(find_teacher_config(name)).MODEL.RESNETS.DEPTH == 50


def test_the_shipped_recipe_is_the_published_one():
    cfg = load_config(ROOT / "configs" / "faster_rcnn_r50_r18.yaml")
    solver = cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER) == (8, 0.01, 180000)
    assert tuple(solver.STEPS) == (120000, 160000)
    assert (cfg.INPUT.FORMAT, min(cfg.INPUT.MIN_SIZE_TRAIN)) == ("RGB", 640)
    teacher = load_config(cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE)
    assert teacher.MODEL.WEIGHTS.startswith("detectron2://COCO-Detection/faster_rcnn_R_50_FPN_3x/")


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/*.yaml")), ids=lambda p: p.name)
def test_every_shipped_config_can_be_read_and_names_its_command(path):
    cfg = load_config(path)
    if path.parent.name == "_base_" or path.name in ("digit_scenes.yaml", "network.yaml"):
        return
    assert f"--config-file {path.relative_to(ROOT)}" in path.read_text()
    if cfg.MODEL.META_ARCHITECTURE == "DistilledDetector":
        assert Path(cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE).is_file()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config file must exist; got '.*none.yaml'"):
        load_config(tmp_path / "none.yaml")
    tiny.write(tmp_path / "child.yaml", {"_BASE_": "base.yaml"})
    with pytest.raises(FileNotFoundError, match=r"base.yaml', which .*child.yaml names as _BASE_"):
        load_config(tmp_path / "child.yaml")


def test_bases_in_a_circle_are_refused(tmp_path):
    tiny.write(tmp_path / "a.yaml", {"_BASE_": "b.yaml"})
    tiny.write(tmp_path / "b.yaml", {"_BASE_": "a.yaml"})
    with pytest.raises(ValueError, match=r"not lead back to its own file; got '.*a.yaml' again"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MODEL: [", "must be plain YAML; got '.*bad.yaml': while parsing"),
        ("- 1\n- 2", r"must be a YAML mapping; got '.*bad.yaml': \[1, 2\]"),
        ("A: !!python/object/apply:os.getcwd []", "must be plain YAML; .*python/object/apply"),
        ("MODEL: {MASK_ON: 3.5}", "Type mismatch .*MODEL.MASK_ON"),
        ("MODEL: 3", "config must have the known types; got .*bad.yaml"),
        ("_BASE_: 3", "_BASE_ must be a file name or a list of them; got 3"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path, text, words):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_config(tmp_path / "bad.yaml")


@pytest.mark.parametrize("as_option", [True, False])
def test_an_unknown_key_brings_the_nearest_one(tmp_path, as_option):
    opts = ["MODEL.DISTILL.REVIEWKD.LOSS_WIEGHT", "2.0"] if as_option else []
    tree = {} if as_option else {"MODEL": {"DISTILL": {"REVIEWKD": {"LOSS_WIEGHT": 2.0}}}}
    path = tiny.write(tmp_path / "student.yaml", {"VERSION": 2, **tree})
    words = "got MODEL.DISTILL.REVIEWKD.LOSS_WIEGHT .*nearest is MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT"
    with pytest.raises(KeyError, match=words):
        load_config(path, opts)


@pytest.mark.parametrize(
    ("key", "nearest"), [("MDOEL", "MODEL"), ("MODEL.DISTIL.METHODS", "MODEL.DISTILL.METHODS")]
)
def test_a_mistyped_section_brings_the_nearest_section(tmp_path, key, nearest):
    tree = {"VERSION": 2}
    *sections, name = key.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
    node[name] = {"A": 1} if not sections else 1
    path = tiny.write(tmp_path / "student.yaml", tree)
    with pytest.raises(KeyError, match=rf"the nearest is {nearest.rpartition('.')[0] or nearest}"):
        load_config(path)


def test_options_say_where_they_are_from(tmp_path):
    path = tiny.write(tmp_path / "teacher.yaml", {"VERSION": 2})
    with pytest.raises(KeyError, match=r"got MODEL.NO in MODEL.DISTILL.TEACHER.OPTS"):
        load_config(path, ["MODEL.NO", 1], "MODEL.DISTILL.TEACHER.OPTS")


def test_what_stock_detectron2_cannot_build_is_known():
    ours = {"DistilledDetector": "reviewkd_det.d2"}
    assert foreign_parts(load_config(ROOT / "configs" / "faster_rcnn_r50_r18.yaml")) == ours
    demo = plain_config(load_config(ROOT / "configs" / "demo" / "student.yaml"))
    assert foreign_parts(demo) == {"build_basic_resnet_fpn_backbone": "reviewkd_det.d2"}


def test_options_must_be_pairs(tmp_path):
    path = tiny.write(tmp_path / "student.yaml", {"VERSION": 2})
    with pytest.raises(ValueError, match=r"KEY VALUE pairs; got MODEL.MASK_ON"):
        load_config(path, ["MODEL.MASK_ON"])
