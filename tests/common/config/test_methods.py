"""The config nodes of the methods: today's keys and defaults, and what they give a method."""

import dataclasses
from dataclasses import dataclass

import pytest
from fvcore.common.config import CfgNode

from classification.config import get_config as classification_config
from classification.config_checks import CUSTOMER, plan_config
from reviewkd_det.common.config.methods import declare_methods, read_settings
from reviewkd_det.core import (
    Method,
    Need,
    Settings,
    find_method,
    register,
    registered_methods,
    registry,
    setting,
)
from reviewkd_det.d2.config import get_config as detection_config
from reviewkd_det.d2.keys import ONE_STAGE, TWO_STAGE

# Before methods had settings of their own, and published since. What a customer has no default for
# it did not have.
DETECTION = {
    "REVIEWKD": {
        "MID_CHANNELS": 256, "NORM": "BN", "FUSION": "attention", "POOL_SIZES": (4, 2, 1),
        "LOSS_WEIGHT": "auto", "WARMUP_ITERS": 0, "TEACHER_SCALE": "none", "IN_FEATURES": (),
        "DECAY_ITERS": 0, "DECAY_SHARE": "auto", "GRADIENT_SHARE": 3.0,
    },
    "DKD": {"ALPHA": 1.0, "BETA": 0.25, "TEMPERATURE": 1.0, "LOSS_WEIGHT": 1.0, "WARMUP_ITERS": 0,
            "DECAY_ITERS": 0, "DECAY_SHARE": "auto", "GRADIENT_SHARE": 3.0, "STANDARDIZE": False},
    "PKD": {"LOSS_WEIGHT": "auto"},
    "CWD": {"LOSS_WEIGHT": "auto", "TEMPERATURE": 1.0},
    "MGD": {"MASK_RATIO": None},  # 0.45 for two stages, 0.65 for one
}  # fmt: skip
CLASSIFICATION = {
    "REVIEWKD": {
        "LOSS_WEIGHT": 1.0, "WARMUP_EPOCHS": 0.0, "MID_CHANNELS": 0, "STUDENT_TAPS": (),
        "TEACHER_TAPS": (), "STUDENT_ACTIVATION": "before", "TEACHER_ACTIVATION": "before",
        "POOLED": True, "NORM": "BN", "FUSION": "attention", "POOL_SIZES": (4, 2, 1),
        "TEACHER_SCALE": "none", "DECAY_EPOCHS": 0.0, "DECAY_SHARE": 0.0, "GRADIENT_SHARE": 1.0,
    },
    "KD": {"LOSS_WEIGHT": 1.0, "WARMUP_EPOCHS": 0.0, "TEMPERATURE": 4.0},
    "DKD": {
        "LOSS_WEIGHT": 1.0, "WARMUP_EPOCHS": 0.0, "ALPHA": 1.0, "BETA": 8.0, "TEMPERATURE": 4.0,
        "DECAY_EPOCHS": 0.0, "DECAY_SHARE": 0.0, "GRADIENT_SHARE": 1.0, "STANDARDIZE": False,
    },
    "FITNET": {"LOSS_WEIGHT": 100.0, "LEVELS": (1,)},
    "AT": {"LOSS_WEIGHT": 1000.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (detection_config().MODEL.DISTILL, DETECTION),
        (classification_config().DISTILL, CLASSIFICATION),
    ],
    ids=["detection", "classification"],
)
def test_the_defaults_are_those_of_earlier_versions_and_the_published_ones(section, expected):
    for node, values in expected.items():
        assert {key: section[node][key] for key in values} == values
    for node in ("REVIEWKD", "DKD"):
        assert set(section[node]) == set(expected[node])


def test_every_method_has_a_node_with_every_setting_for_both_customers():
    for name, method in registered_methods().items():
        fields = {field.name.upper() for field in dataclasses.fields(method.Settings)}
        for section, unit in (
            (detection_config().MODEL.DISTILL, "ITERS"),
            (classification_config().DISTILL, "EPOCHS"),
        ):
            more = {f"WARMUP_{unit}", f"DECAY_{unit}"}
            assert set(section[name.upper()]) >= fields | more, name


@pytest.mark.parametrize(
    ("uses", "ratio", "weight"),
    [(TWO_STAGE, 0.45, "auto"), (ONE_STAGE, 0.65, "auto"), (CUSTOMER.uses, 0.15, 7e-5)],
)
def test_a_default_may_depend_on_what_is_trained(uses, ratio, weight):
    method = find_method("MGD")
    settings = read_settings(method, {"mask_ratio": None, "loss_weight": None}, uses, "KEY")
    assert (settings.mask_ratio, settings.loss_weight) == (ratio, weight)
    assert read_settings(method, {"loss_weight": 2}, uses, "KEY").loss_weight == 2.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"loss_weight": "big"}, "KEY.LOSS_WEIGHT must be of type float or auto; got big"),
        ({"levels": (0, -1)}, r"KEY.LEVELS must not be negative; got \(0, -1\)"),
        ({"levels": (0.5,)}, r"KEY.LEVELS must hold integers; got \(0.5,\)"),
        (
            {"lossweight": 2.0},
            r"LOSS_WEIGHT, GRADIENT_SHARE, LEVELS; got lossw",
        ),
        ({"loss_weight": True}, "KEY.LOSS_WEIGHT must be of type float or auto; got True"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_key(values, words):
    with pytest.raises(ValueError, match=words):
        read_settings(find_method("PKD"), values, TWO_STAGE, "KEY")


def test_a_list_is_taken_for_a_tuple():
    settings = read_settings(find_method("AT"), {"levels": [0, 2]}, TWO_STAGE, "KEY")
    assert settings.levels == (0, 2)


def test_a_key_without_a_single_default_takes_a_number_from_a_file_and_back(tmp_path):
    cfg = CfgNode()
    declare_methods(cfg, [ONE_STAGE, TWO_STAGE], {"WARMUP_ITERS": 0})
    (tmp_path / "dump.yaml").write_text(cfg.dump())
    cfg.merge_from_file(str(tmp_path / "dump.yaml"))
    assert cfg.MGD.MASK_RATIO is None
    cfg.merge_from_list(["MGD.MASK_RATIO", "0.5"])
    assert cfg.MGD.MASK_RATIO == 0.5


class Demanding(Method):
    """Has a setting of the name of an old key."""

    needs = Need.LOGITS

    @dataclass(frozen=True, kw_only=True)
    class Settings(Settings):
        """Its settings."""

        pooled: bool = setting(True, "Any.")


@pytest.fixture
def demanding(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    register("Demanding")(Demanding)


def test_a_method_that_cannot_be_served_stops_nobody_who_does_not_name_it(demanding, monkeypatch):
    served = CUSTOMER._replace(gives=Need.LEVELS)
    monkeypatch.setattr("classification.config_checks.CUSTOMER", served)
    cfg = classification_config()
    assert plan_config(cfg) == {}
    cfg.DISTILL.METHODS = ("Demanding",)
    with pytest.raises(ValueError, match=r"METHODS Demanding must have logits, which a"):
        plan_config(cfg)


def test_a_setting_may_have_the_name_of_an_old_key(demanding, monkeypatch):
    monkeypatch.setattr(Demanding, "needs", Need.LEVELS)
    cfg = classification_config()
    cfg.merge_from_list(["DISTILL.METHODS", ("Demanding",), "DISTILL.DEMANDING.POOLED", False])
    assert plan_config(cfg)["Demanding"].settings.pooled is False


@pytest.mark.parametrize("name", ["Pooled", "Methods"])
def test_a_method_cannot_have_the_name_of_another_key(monkeypatch, name):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    register(name)(Demanding)
    with pytest.raises(ValueError, match=f"not be that of another config key; got '{name}'"):
        classification_config()
