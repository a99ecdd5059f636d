"""Which values the options of our trainer take, whichever config gives them."""

from collections.abc import Mapping

from reviewkd_det.common.runs.average import check_decay
from reviewkd_det.common.runs.trackers import check_trackers
from reviewkd_det.d2.runs.trainer import RunSettings

__all__ = ["check_options"]


def check_options(settings: RunSettings, keys: Mapping[str, str], *, evaluates: bool) -> None:
    """Check what nothing checks where it is used.

    Args:
        settings: settings of the run.
        keys: config key of each setting, for error sentences.
        evaluates: whether the run has test sets.

    Raises:
        ImportError: a tracker is not installed.
        ValueError: a value is out of range, or excludes another.
    """
    if settings.accumulation_steps < 1:
        key, value = keys["accumulation_steps"], settings.accumulation_steps
        raise ValueError(f"{key} must be 1 or more; got {value}")
    if settings.patience < 0:
        raise ValueError(f"{keys['patience']} must be 0 or more; got {settings.patience}")
    if settings.patience and not (evaluates and settings.eval_period > 0):
        sets = "test sets" if evaluates else "no test sets"
        raise ValueError(
            f"{keys['patience']} must be 0 without evaluations on the way; got "
            f"{settings.patience} with {keys['eval_period']} {settings.eval_period} and {sets}"
        )
    check_decay(settings.ema_decay, keys["ema_decay"])
    check_trackers(settings.trackers, "; TensorBoard's files are always written")
