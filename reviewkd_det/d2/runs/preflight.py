"""What is refused before a training or an evaluation, because it would fail in the midst of it."""

from importlib.util import find_spec

from detectron2.config import CfgNode
from fvcore.common.param_scheduler import ParamScheduler

from reviewkd_det.d2.runs.augmented import check_augmented

__all__ = ["check_pictures", "check_run", "check_schedule"]

MOST_TRIED = 1000  # iterations whose learning rate is tried


def check_run(cfg: CfgNode, *, training: bool) -> None:
    """Check what a YAML config asks for beside its data.

    Raises:
        ImportError: pictures need a package that is not installed.
        ValueError: the detector cannot be evaluated with TEST.AUG.
    """
    check_augmented(cfg)
    if training:
        check_pictures(cfg.VIS_PERIOD, "VIS_PERIOD")


def check_pictures(period: int, key: str) -> None:
    """Check that Detectron2 can draw pictures of a training.

    Args:
        period: iterations between two pictures; 0 for none.
        key: config key of the period, for the error sentence.

    Raises:
        ImportError: Detectron2 draws with OpenCV, which is not installed.
    """
    if period > 0 and find_spec("cv2") is None:
        raise ImportError(
            f"{key} must be 0 without OpenCV; got {period}; install it with "
            "pip install opencv-python-headless"
        )


def check_schedule(schedule: ParamScheduler, max_iter: int, key: str) -> None:
    """Check that a schedule has a value in a training's iterations, its end excluded.

    Args:
        schedule: schedule over [0, 1).
        max_iter: iterations of the training.
        key: config key of the schedule, for the error sentence.

    Raises:
        ValueError: it has none in one of those tried.
    """
    step = max(1, max_iter // MOST_TRIED)
    for iteration in [*range(0, max_iter, step), max_iter - 1]:
        try:
            float(schedule(iteration / max_iter))
        except Exception as error:  # of whichever kind a schedule raises
            raise ValueError(
                f"{key} must have a value in each of {max_iter} iterations; got none in iteration "
                f"{iteration}: {type(error).__name__} {error}"
            ) from error
