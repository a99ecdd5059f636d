import pytest

from reviewkd_det.common.distill.build import Customer, build_methods, needs_of, plan_methods
from reviewkd_det.core import Level, Need, Side

LEVELS_ALONE = Customer("a segmenter", Need.LEVELS, ("one_stage",), "KEY", "warmup_iters")
ALL = Customer(
    "a classifier", Need.LEVELS | Need.LOGITS | Need.TARGET, ("classification",), "KEY", "warmup"
)
SIDES = Side((Level("a", 4),), 5), Side((Level("a", 6),), 5)


def test_a_need_that_is_not_given_is_named():
    words = "KEY.METHODS DKD must have logits and target, which a segmenter does not give"
    with pytest.raises(ValueError, match=words):
        plan_methods({"DKD": {}}, LEVELS_ALONE)


def test_methods_are_built_with_their_settings_weight_and_warmup():
    plans = plan_methods({"DKD": {"loss_weight": 2, "warmup": 20}, "PKD": {"levels": [0]}}, ALL)
    assert needs_of(plans) == Need.LEVELS | Need.LOGITS | Need.TARGET
    built = build_methods(plans, *SIDES)
    assert list(built) == ["DKD", "PKD"]
    assert built["DKD"].method.settings.beta == 8.0
    assert built["DKD"].factor(5) == 0.5
    assert built["PKD"].factor(0) == 6.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"DKD": {"warmup": -1}}, "KEY.DKD.WARMUP must not be negative; got -1"),
        ({"KD": {"temperature": 0.0}}, "KEY.KD.TEMPERATURE must be positive; got 0.0"),
        ({"kd": {}}, "KEY.METHODS must name known methods; got 'kd'; the nearest is KD"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(settings, words):
    with pytest.raises(ValueError, match=words):
        plan_methods(settings, ALL)


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
