"""Old names of keys, in files, on the command line and in a config that a stock script merged."""

import pytest
from detectron2.modeling import build_model

from classification.config import load_config as load_classification
from reviewkd_det.d2 import add_distill_config, load_config
from reviewkd_det.d2.keys import add_run_config
from tests.d2 import tiny

OLD, NEW = "MODEL.DISTILL.REVIEWKD.IN_FEATURES", "MODEL.DISTILL.IN_FEATURES"


def distill(**settings):
    return {"VERSION": 2, "MODEL": {"DISTILL": settings}}


OLD_FILE = distill(REVIEWKD={"IN_FEATURES": ["p2"]})
NEW_FILE = distill(IN_FEATURES=["p3"])


@pytest.mark.parametrize(
    ("base", "child", "opts", "expected"),
    [
        (OLD_FILE, {}, [], ("p2",)),
        (OLD_FILE, NEW_FILE, [], ("p3",)),
        (NEW_FILE, OLD_FILE, [], ("p2",)),
        (NEW_FILE, distill(REVIEWKD={"IN_FEATURES": []}), [], ()),
        (NEW_FILE, {}, [OLD, "('p4',)"], ("p4",)),
        (OLD_FILE, {}, [NEW, "('p4',)"], ("p4",)),
        (OLD_FILE, {}, [OLD, "()"], ()),
        ({}, {}, [], ()),
    ],
)
def test_of_both_names_the_one_set_last_counts(tmp_path, base, child, opts, expected):
    tiny.write(tmp_path / "base.yaml", base or {"VERSION": 2})
    path = tiny.write(tmp_path / "child.yaml", {"_BASE_": "base.yaml", **child})
    cfg = load_config(path, opts)
    assert tuple(cfg.MODEL.DISTILL.IN_FEATURES) == expected
    assert cfg.MODEL.DISTILL.REVIEWKD.IN_FEATURES == ()


def test_a_stock_script_understands_the_old_name(tmp_path):
    from detectron2.config import get_cfg

    tiny.save_teacher(tmp_path)
    path = tiny.save_student(tmp_path, distill={"REVIEWKD": {"IN_FEATURES": ["p3", "p2"]}})
    cfg = get_cfg()
    add_distill_config(cfg)
    add_run_config(cfg)
    cfg.merge_from_file(str(path))
    cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE = str(tmp_path / "teacher.yaml")
    assert build_model(cfg).levels == ("p2", "p3")


def test_classification_understands_its_old_names(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "DISTILL: {REVIEWKD: {STUDENT_ACTIVATION: after, POOLED: false}}\n"
    )
    opts = ["DISTILL.REVIEWKD.TEACHER_ACTIVATION", "after"]
    settings = load_classification(tmp_path / "run.yaml", opts).DISTILL
    assert (settings.STUDENT_ACTIVATION, settings.TEACHER_ACTIVATION) == ("after", "after")
    assert not settings.POOLED
