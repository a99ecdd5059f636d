"""Published settings by name: what they set, and what counts more."""

import pytest

from classification.config import load_config
from classification.presets import presets
from tests.classification.running import ROOT

PAIR = ROOT / "classification" / "configs" / "cifar100" / "resnet56_resnet20.yaml"


@pytest.mark.parametrize("name", presets().names())
def test_a_preset_sets_known_keys_to_values_that_are_taken(name):
    cfg = load_config(PAIR, ["DISTILL.PRESET", name])
    method = name.partition("/")[2].partition("-")[0]
    assert list(cfg.DISTILL.METHODS) == [method]
    values = presets().values(name, teacher="resnet56", student="resnet20")
    for key, value in values.items():
        node = cfg
        for part in key.split("."):
            node = node[part]
        assert node == value


def test_the_pair_decides_where_it_is_published():
    betas = [
        presets().values("cifar100/DKD", teacher=teacher, student=student)["DISTILL.DKD.BETA"]
        for teacher, student in (
            ("resnet56", "resnet20"),
            ("wrn_40_2", "wrn_16_2"),
            ("resnet32x4", "ShuffleV1"),
        )
    ]
    assert betas == [2.0, 6.0, 8.0]
    library = ["TEACHER.NAME", "torchvision/resnet34", "MODEL.NAME", "torchvision/resnet18"]
    cfg = load_config(PAIR, ["DISTILL.PRESET", "imagenet/DKD", *library])
    assert cfg.DISTILL.DKD.BETA == 0.5


def test_what_is_given_beside_a_preset_or_after_it_counts(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(f"_BASE_: {PAIR}\nDISTILL: {{PRESET: cifar100/KD, KD: {{TEMPERATURE: 3.0}}}}\n")
    cfg = load_config(own)
    assert cfg.DISTILL.METHODS == ("KD",)  # the base has ReviewKD
    assert (cfg.DISTILL.KD.TEMPERATURE, cfg.DISTILL.KD.LOSS_WEIGHT) == (3.0, 0.9)
    cfg = load_config(own, ["DISTILL.KD.LOSS_WEIGHT", "0.5"])
    assert (cfg.DISTILL.KD.TEMPERATURE, cfg.DISTILL.KD.LOSS_WEIGHT) == (3.0, 0.5)
    above = tmp_path / "above.yaml"
    above.write_text("_BASE_: own.yaml\nDISTILL: {CROSS_ENTROPY_WEIGHT: 0.7}\n")
    assert load_config(above).DISTILL.CROSS_ENTROPY_WEIGHT == 0.7
    cfg = load_config(above, ["DISTILL.PRESET", "cifar100/KD"])
    assert (cfg.DISTILL.KD.TEMPERATURE, cfg.DISTILL.CROSS_ENTROPY_WEIGHT) == (4.0, 0.1)


def test_the_config_of_a_run_is_what_it_was(tmp_path):
    cfg = load_config(PAIR, ["DISTILL.PRESET", "cifar100/DKD", "DISTILL.DKD.BETA", "5.0"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert load_config(tmp_path / "config.yaml") == cfg


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"DISTILL.PRESET must be of cifar100/KD, .*; got 'DKD'"):
        load_config(PAIR, ["DISTILL.PRESET", "DKD"])
