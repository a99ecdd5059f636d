import logging

import pytest

from reviewkd_det.common.distill.ratio import log_ratios
from reviewkd_det.core import Weighted, find_method

METHODS = {"ReviewKD": Weighted(find_method("ReviewKD"))}


@pytest.mark.parametrize(
    ("own", "loss", "ratio", "warned"),
    [
        (2.0, 1.0, "0.5", None),
        (2.0, 40.0, "20", "more than 10 times"),
        (2.0, 0.01, "0.005", "too small beside"),
        (0.0, 1.0, "inf", "more than 10 times"),
        (1.0, float("nan"), None, None),
        (float("inf"), 1.0, None, None),
    ],
)
def test_a_loss_far_from_the_students_own_is_warned_of_with_its_key(
    caplog, own, loss, ratio, warned
):
    with caplog.at_level(logging.INFO):
        log_ratios(own, {"ReviewKD": loss}, METHODS, 0, "KEY", logging.getLogger("any"))
    if ratio is None:  # the run is about to end with a sentence of its own
        assert not caplog.messages
        return
    assert f"loss_reviewkd is {ratio} times" in caplog.messages[0]
    warnings = [x.message for x in caplog.records if x.levelno == logging.WARNING]
    assert len(warnings) == (warned is not None)
    for message in warnings:
        assert warned in message
        assert "KEY.REVIEWKD.LOSS_WEIGHT, or set TEACHER_SCALE there to rms" in message


def test_a_method_that_is_switched_off_is_not_compared(caplog):
    off = {"ReviewKD": Weighted(find_method("ReviewKD"), 0.0)}
    with caplog.at_level(logging.INFO):
        log_ratios(1.0, {"ReviewKD": 0.0}, off, 0, "KEY", logging.getLogger("any"))
    assert not caplog.messages
