"""Which values the options of our trainer take, whichever config gives them."""

from reviewkd_det.common.runs.average import check_decay
from reviewkd_det.common.runs.trackers import check_trackers
from reviewkd_det.d2.runs.settings import RunSettings

__all__ = ["check_options"]


AT_LEAST = {
    "max_iter": 1,
    "checkpoint_period": 1,
    "log_period": 1,
    "accumulation_steps": 1,
    "checkpoints_to_keep": 0,
    "patience": 0,
}


def check_options(settings: RunSettings, *, evaluates: bool) -> None:
    """Check what nothing checks where it is used.

    Args:
        settings: settings of the run, with the config's names for them.
        evaluates: whether the run has test sets.

    Raises:
        ImportError: a tracker is not installed.
        ValueError: a value is out of range, or excludes another.
    """
    keys = settings.option_keys
    for name, least in AT_LEAST.items():
        if (value := getattr(settings, name)) < least:
            raise ValueError(f"{keys[name]} must be {least} or more; got {value}")
    if settings.patience and not (evaluates and settings.eval_period > 0):
        sets = "test sets" if evaluates else "no test sets"
        raise ValueError(
            f"{keys['patience']} must be 0 without evaluations on the way; got "
            f"{settings.patience} with {keys['eval_period']} {settings.eval_period} and {sets}"
        )
    check_decay(settings.ema_decay, keys["ema_decay"])
    check_trackers(settings.trackers, keys["trackers"], "; TensorBoard's files are always written")
