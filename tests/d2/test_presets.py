"""Published settings of detectors by name."""

import pytest

from reviewkd_det.core import find_method
from reviewkd_det.d2.config import load_config, presets
from tests.scripts import ROOT

TWO_STAGE = ROOT / "configs" / "faster_rcnn_r101_r50.yaml"
ONE_STAGE = ROOT / "configs" / "retinanet_r101_r50.yaml"


@pytest.mark.parametrize("name", presets().names())
@pytest.mark.parametrize("path", [TWO_STAGE, ONE_STAGE], ids=["two-stage", "one-stage"])
def test_a_preset_sets_known_keys_of_numbers(name, path):
    cfg = load_config(path, ["MODEL.DISTILL.PRESET", name]).MODEL.DISTILL
    (method,) = cfg.METHODS
    assert name == f"coco/{method}"
    assert isinstance(cfg[method.upper()].LOSS_WEIGHT, float)
    find_method(method)


@pytest.mark.parametrize(
    ("name", "key", "two", "one"),
    [
        ("coco/PKD", "PKD.LOSS_WEIGHT", 6.0, 10.0),
        ("coco/MGD", "MGD.LOSS_WEIGHT", 5e-7, 2e-5),
        ("coco/MGD", "MGD.MASK_RATIO", 0.45, 0.65),
        ("coco/FGD", "FGD.OBJECTS", 5e-5, 1e-3),
        ("coco/CWD", "CWD.LOSS_WEIGHT", 10.0, 10.0),
    ],
)
def test_the_student_decides_where_it_is_published(name, key, two, one):
    for path, expected in ((TWO_STAGE, two), (ONE_STAGE, one)):
        node = load_config(path, ["MODEL.DISTILL.PRESET", name]).MODEL.DISTILL
        for part in key.split("."):
            node = node[part]
        assert node == expected


def test_fcos_has_numbers_of_its_own():
    values = presets().values("coco/FGD", student="FCOS")
    assert values["MODEL.DISTILL.FGD.TEMPERATURE"] == 0.8
    assert values["MODEL.DISTILL.FGD.OBJECTS"] == 1.6e-3


def test_what_is_given_beside_it_counts_and_others_are_refused():
    opts = ["MODEL.DISTILL.PRESET", "coco/PKD", "MODEL.DISTILL.PKD.LOSS_WEIGHT"]
    for given, expected in (("2.5", 2.5), ("auto", "auto")):
        assert expected == load_config(TWO_STAGE, [*opts, given]).MODEL.DISTILL.PKD.LOSS_WEIGHT
    with pytest.raises(ValueError, match=r"DISTILL.PRESET must be of coco/PKD, .*; got 'coco/pkd'"):
        load_config(TWO_STAGE, ["MODEL.DISTILL.PRESET", "coco/pkd"])


def test_without_a_preset_methods_on_levels_find_their_weight():
    cfg = load_config(ONE_STAGE).MODEL.DISTILL
    for name in ("FitNet", "AT", "PKD", "CWD", "MGD", "NST", "VID", "SP", "FGD", "RKD", "PKT"):
        assert cfg[name.upper()].LOSS_WEIGHT == "auto", name
    assert cfg.REVIEWKD.LOSS_WEIGHT == 1.0  # the recipe's, as published
    assert cfg.DKD.LOSS_WEIGHT == 1.0
