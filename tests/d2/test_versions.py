"""Configs that another version of Detectron2 wrote, and those that another version is to read."""

import logging

import pytest
import yaml
from detectron2.config import get_cfg

from reviewkd_det.common.config.nested import flat
from reviewkd_det.d2 import config as config_module
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.compat import NEWER_KEYS
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.exporting.config import exported_config, to_do_before_loading
from tests.d2 import tiny

FED = {"USE_FED_LOSS": True, "USE_SIGMOID_CE": True}


def release_0_6():
    """The defaults of release 0.6: those of the installed version without the newer keys."""
    cfg = get_cfg()
    for key in NEWER_KEYS:
        node, (*sections, name) = cfg, key.split(".")
        for section in sections:
            node = node[section]
        node.pop(name, None)
    return cfg


@pytest.fixture
def old(monkeypatch):
    """Make the installed Detectron2 look like release 0.6."""
    monkeypatch.setattr(config_module, "get_cfg", release_0_6)


def test_the_newer_keys_have_their_defaults():
    installed = flat(get_cfg())
    known = {key: installed[key] for key in NEWER_KEYS if key in installed}
    assert known == {key: NEWER_KEYS[key] for key in known}


def test_newer_keys_at_their_defaults_are_left_out_with_a_line(old, tmp_path, caplog):
    saved = get_cfg()
    saved.FLOAT32_PRECISION = NEWER_KEYS["FLOAT32_PRECISION"]
    (tmp_path / "newer.yaml").write_text(saved.dump())
    with caplog.at_level(logging.WARNING, "reviewkd_det"):
        cfg = load_config(tmp_path / "newer.yaml", ["SOLVER.NUM_DECAYS", "3"])
    (record,) = caplog.records
    assert "newer.yaml" in record.getMessage()
    assert "FLOAT32_PRECISION" in record.getMessage()
    assert "SOLVER.NUM_DECAYS" in record.getMessage()
    assert not set(NEWER_KEYS) & set(flat(cfg))


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"FLOAT32_PRECISION": "high"}, "FLOAT32_PRECISION .*'high' needs a newer Detectron2"),
        ({"MODEL": {"ROI_BOX_HEAD": {"USE_SIGMOID_CE": True}}}, "USE_SIGMOID_CE .*value True"),
        ({"FLOAT32_PRECISON": ""}, "got FLOAT32_PRECISON in .*; the nearest is FLOAT32_PRECISION"),
    ],
)
def test_a_newer_key_of_another_value_is_refused(old, tmp_path, tree, words):
    path = tiny.write(tmp_path / "newer.yaml", {"VERSION": 2, **tree})
    with pytest.raises(KeyError, match=words):
        load_config(path)


def test_nothing_is_said_of_a_config_without_newer_keys(old, tmp_path, caplog):
    load_config(tiny.write(tmp_path / "plain.yaml", {"VERSION": 2}))
    assert not caplog.records


def test_a_config_of_version_1_is_upgraded(tmp_path):
    tree = {"MODEL": {"WEIGHT": "a.pth", "MASK_ON": True}, "TEST": {"AUG_ON": True}}  # as it was
    cfg = load_config(tiny.write(tmp_path / "old.yaml", tree))
    assert (cfg.MODEL.WEIGHTS, cfg.MODEL.MASK_ON, cfg.TEST.AUG.ENABLED) == ("a.pth", True, True)
    assert cfg.MODEL.DISTILL.METHODS


def test_the_export_is_read_by_this_version_and_by_release_0_6(tmp_path):
    tree = tiny.detector(tiny.R_CNN, width=4, pyramid=8, SOLVER={"BASE_LR": 0.5})
    plain = plain_config(load_config(tiny.write(tmp_path / "a.yaml", tree)))
    exported, left_out = exported_config(plain)
    assert not left_out
    assert not to_do_before_loading(exported)
    (tmp_path / "exported.yaml").write_text(exported.dump())
    for cfg in (get_cfg(), release_0_6()):
        cfg.merge_from_file(str(tmp_path / "exported.yaml"), allow_unsafe=False)
        values = flat(cfg)
        assert values == {key: flat(plain)[key] for key in values}
    content = yaml.safe_load((tmp_path / "exported.yaml").read_text())
    assert content["SOLVER"] == {"BASE_LR": 0.5}
    assert content["VERSION"] == 2
    assert "DATALOADER" not in content


def test_the_export_leaves_out_newer_keys_of_the_training_alone(tmp_path):
    if not set(NEWER_KEYS) <= set(flat(get_cfg())):
        pytest.skip("this Detectron2 has no newer keys")
    tree = {"VERSION": 2, "MODEL": {"ROI_BOX_HEAD": FED}, "SOLVER": {"NUM_DECAYS": 4}}
    path = tiny.write(tmp_path / "a.yaml", {"FLOAT32_PRECISION": "high", **tree})
    exported, left_out = exported_config(plain_config(load_config(path)))
    assert set(left_out) == {
        "FLOAT32_PRECISION",
        "MODEL.ROI_BOX_HEAD.USE_FED_LOSS",
        "SOLVER.NUM_DECAYS",
    }
    assert flat(exported) == {"VERSION": 2, "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True}
    (line,) = to_do_before_loading(exported)
    assert line == ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE needs a Detectron2 newer than release 0.6")
