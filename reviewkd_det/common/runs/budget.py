"""How long to train in a given time."""

from typing import NamedTuple

__all__ = ["Measured", "Schedule", "choose_schedule", "fit_batch"]

EPOCHS, LEAST_ITERATIONS = 36, 3000  # the longer of the two is as long as a training gets
SHORTEST = 50  # iterations below which nothing is learned
RESERVE = 60.0  # seconds for the page and what was not measured


class Measured(NamedTuple):
    """What was measured of a training.

    Args:
        step: seconds of an iteration.
        overhead: seconds of its start and its evaluation.
        images: images that it draws from.
    """

    step: float
    overhead: float
    images: int


class Schedule(NamedTuple):
    """How long to train.

    Args:
        iterations: iterations.
        is_whole: whether more time would not make it longer.
    """

    iterations: int
    is_whole: bool


def choose_schedule(seconds: float, measured: Measured, batch: int) -> Schedule:
    """Choose the iterations for the time that is left, never more than a training needs.

    The evaluation is counted twice: with the training, and with what the export is checked and
    measured by.

    Args:
        seconds: seconds that are left for training, evaluation, export and report.
        measured: what was measured.
        batch: images of an iteration.

    Raises:
        ValueError: there is no time to train.
    """
    left = seconds - 2 * measured.overhead - RESERVE
    fitting = int(left / measured.step)
    if fitting < SHORTEST:
        needed = 2 * measured.overhead + RESERVE + SHORTEST * measured.step
        raise ValueError(
            f"--hours must leave time for {SHORTEST} iterations of {measured.step:.2f} s, "
            f"evaluation and export, {needed / 3600:.2f} h; got {max(seconds, 0) / 3600:.2f} h left"
        )
    longest = max(EPOCHS * measured.images // batch, LEAST_ITERATIONS)
    return Schedule(min(fitting, longest), fitting >= longest)


def fit_batch(batch: int, rate: float, most: int, *, adaptive: bool) -> tuple[int, float]:
    """A batch that a machine takes, and its learning rate.

    Args:
        batch: images of a batch of the recipe.
        rate: its learning rate.
        most: most images of a batch on this machine.
        adaptive: whether the optimiser adapts each step, as Adam does: the rate then falls with the
            square root of the batch, else with the batch.
    """
    fitted = min(batch, most)
    share = fitted / batch
    return fitted, rate * (share**0.5 if adaptive else share)
