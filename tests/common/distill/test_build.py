import math

import pytest

from reviewkd_det.common.distill.build import Customer, build_methods, needs_of, plan_methods
from reviewkd_det.core import Level, Need, Side

LEVELS_ALONE = Customer("a segmenter", Need.LEVELS, ("one_stage",), "KEY", "iters")
ALL = Customer(
    "a classifier", Need.LEVELS | Need.LOGITS | Need.TARGET, ("classification",), "KEY", "epochs", 1
)
SIDES = Side((Level("a", 4),), 5), Side((Level("a", 6),), 5)


def test_a_need_that_is_not_given_is_named():
    words = "KEY.METHODS DKD must have logits and target, which a segmenter does not give"
    with pytest.raises(ValueError, match=words):
        plan_methods({"DKD": {}}, LEVELS_ALONE)


def test_methods_are_built_with_their_settings_weight_warmup_and_decay():
    dkd = {"loss_weight": 2, "warmup_epochs": 20, "decay_epochs": 40}
    plans = plan_methods({"DKD": dkd, "PKD": {"levels": [0]}}, ALL)
    assert needs_of(plans) == Need.LEVELS | Need.LOGITS | Need.TARGET
    built = build_methods(plans, *SIDES)
    assert list(built) == ["DKD", "PKD"]
    assert built["DKD"].method.settings.beta == 8.0
    assert [built["DKD"].factor(epoch) for epoch in (10, 20, 40)] == [0.75, 1.0, 0.0]
    assert built["PKD"].factor(0) == 6.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"DKD": {"warmup_epochs": -1}}, "KEY.DKD.WARMUP_EPOCHS must not be negative; got -1"),
        ({"DKD": {"decay_epochs": -1}}, "KEY.DKD.DECAY_EPOCHS must not be negative; got -1"),
        (
            {"DKD": {"warmup_epochs": 5.0, "decay_epochs": 2.5}},
            "KEY.DKD.DECAY_EPOCHS must be more than WARMUP_EPOCHS, 5.0, or 0; got 2.5",
        ),
        (
            {"DKD": {"decay_epochs": 1.0}},
            "KEY.DKD.DECAY_EPOCHS must be more than 1, with which epochs begin, or 0; got 1.0, ",
        ),
        ({"DKD": {"decay_epochs": math.nan}}, "KEY.DKD.DECAY_EPOCHS must not be negative; got nan"),
        ({"DKD": {"decay_share": -0.1}}, "KEY.DKD.DECAY_SHARE must not be negative; got -0.1"),
        (
            {"DKD": {"decay_share": "half"}},
            "KEY.DKD.DECAY_SHARE must be a number or auto; got 'half'",
        ),
        ({"DKD": {"decay_share": 1.5}}, "KEY.DKD.DECAY_SHARE must be at most 1, the training; got"),
        (
            {"DKD": {"decay_share": 0.5, "decay_epochs": 30.0}},
            "KEY.DKD.DECAY_SHARE must be 0 beside DECAY_EPOCHS; got 0.5 and 30.0",
        ),
        ({"KD": {"temperature": 0.0}}, "KEY.KD.TEMPERATURE must be positive; got 0.0"),
        ({"kd": {}}, "KEY.METHODS must name known methods; got 'kd'; the nearest is KD"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(settings, words):
    with pytest.raises(ValueError, match=words):
        plan_methods(settings, ALL)


def test_a_decay_may_end_after_the_first_iteration():
    built = build_methods(plan_methods({"PKD": {"decay_iters": 1}}, LEVELS_ALONE), *SIDES)
    assert [built["PKD"].has_ended(iteration) for iteration in (0, 1)] == [False, True]


def test_a_weight_falls_over_a_part_of_the_training():
    plans = plan_methods({"PKD": {"decay_share": 0.5, "loss_weight": 2.0}}, LEVELS_ALONE)
    built = build_methods(plans, *SIDES, length=40)
    assert [built["PKD"].factor(iteration) for iteration in (0, 5, 20, 30)] == [2.0, 1.5, 0.0, 0.0]
    assert [built["PKD"].has_ended(iteration) for iteration in (19, 20)] == [False, True]


@pytest.mark.parametrize(
    ("settings", "length", "weights"),
    [
        ({"loss_weight": "auto"}, 30, [1.0, 0.5, 0.0]),
        ({"loss_weight": "auto", "warmup_iters": 20}, 30, [0.0, 0.5, 1.0]),
        ({"loss_weight": "auto"}, 0, [1.0, 1.0, 1.0]),
        ({"loss_weight": 1.0}, 30, [1.0, 1.0, 1.0]),
    ],
)
def test_a_weight_that_is_found_falls_over_two_thirds_of_a_training(settings, length, weights):
    plans = plan_methods({"PKD": {"decay_share": "auto", **settings}}, LEVELS_ALONE)
    built = build_methods(plans, *SIDES, length=length)
    assert [built["PKD"].factor(iteration) for iteration in (0, 10, 20)] == weights


@pytest.mark.parametrize(("length", "warmup"), [(0, 0), (40, 20), (40, 30)])
def test_a_part_of_the_training_must_be_longer_than_the_warmup(length, warmup):
    settings = {"PKD": {"decay_share": 0.5, "warmup_iters": warmup}}
    words = (
        f"PKD.DECAY_SHARE must be a part of the training that is longer than the warm-up, {warmup}"
    )
    with pytest.raises(ValueError, match=words):
        build_methods(plan_methods(settings, LEVELS_ALONE), *SIDES, length=length)


def test_what_does_not_fit_these_two_is_refused():
    plans = plan_methods({"AT": {"levels": [1]}}, ALL)
    with pytest.raises(
        ValueError, match=r"KEY.AT.LEVELS must hold positions from 0 to 0; got \(1,\)"
    ):
        build_methods(plans, *SIDES)
    plans = plan_methods({"CWD": {"levels": [0, 0]}}, ALL)
    with pytest.raises(ValueError, match=r"KEY.CWD.LEVELS must name each level once; got \(0, 0\)"):
        build_methods(plans, *SIDES)
    with pytest.raises(ValueError, match="same classes apart for KD; got 5 and 7 logits"):
        build_methods(plan_methods({"KD": {}}, ALL), SIDES[0], SIDES[1]._replace(classes=7))
