import math
from fractions import Fraction

import pytest
import torch

from classification.config import get_config
from classification.runs.schedule import build_schedule


def schedule(**keys):
    solver = get_config().SOLVER
    for key, value in keys.items():
        solver[key] = value
    return build_schedule(solver)


def by_epoch(steps=1, **keys):
    """The factor at the start of each step, as the training loop asks for it."""
    epochs, factor = keys["EPOCHS"], schedule(**keys)
    return [
        factor((epoch + step / steps) / epochs) for epoch in range(epochs) for step in range(steps)
    ]


def test_the_published_milestones_divide_by_ten_after_as_many_epochs():
    found = by_epoch(EPOCHS=240, MILESTONES=(150, 180, 210), GAMMA=0.1)
    assert found == pytest.approx([1.0] * 150 + [0.1] * 30 + [0.01] * 30 + [0.001] * 30)


@pytest.mark.parametrize("epochs", [3, 7, 49, 100, 120, 240, 300])
def test_every_epoch_can_be_a_milestone(epochs):
    # 49 * (k / 49) is not k for every k in floating point.
    found = by_epoch(EPOCHS=epochs, MILESTONES=tuple(range(1, epochs)), GAMMA=0.5)
    assert found == [0.5**epoch for epoch in range(epochs)]


@pytest.mark.parametrize("steps", [3, 390])
def test_a_milestone_holds_from_the_first_step_of_its_epoch_on(steps):
    found = by_epoch(steps, EPOCHS=7, MILESTONES=(3, 5), GAMMA=0.5)
    assert found == [1.0] * 3 * steps + [0.5] * 2 * steps + [0.25] * 2 * steps


@pytest.mark.parametrize(
    ("milestones", "expected"),
    [((150, 180), [1.0] * 4), ((2, 4), [1, 1, 0.5, 0.5]), ((), [1.0] * 4), ([3], [1, 1, 1, 0.5])],
)
def test_milestones_beyond_the_end_are_ignored(milestones, expected):
    assert by_epoch(EPOCHS=4, MILESTONES=milestones, GAMMA=0.5) == expected


def test_cosine_is_half_a_wave_down_to_zero():
    factor = schedule(SCHEDULE="cosine", EPOCHS=8, MILESTONES=(9, 1))
    expected = [1.0, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0.0]
    assert [factor(part) for part in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["multistep", "cosine"])
@pytest.mark.parametrize("warmup", [0.5, 1.0, 3.0, 5.5])
def test_a_warmup_is_linear_and_joins_the_schedule(name, warmup):
    keys = {"SCHEDULE": name, "EPOCHS": 9, "MILESTONES": (4, 7)}
    plain, warmed = schedule(**keys), schedule(**keys, WARMUP_EPOCHS=warmup)
    part = warmup / 9
    for share in (0, 0.25, 0.5, 0.75, 1 - 1e-9):
        assert warmed(share * part) == pytest.approx(share * plain(part))
    for where in torch.linspace(part, 1 - 1e-9, 50).tolist():
        assert warmed(max(where, part)) == plain(max(where, part))


def test_any_length_of_warmup_can_be_scheduled():
    for epochs in range(1, 60):
        for warmup in [*range(epochs), epochs - float(Fraction(1, 3))]:
            keys = {"EPOCHS": epochs, "WARMUP_EPOCHS": float(warmup), "MILESTONES": ()}
            assert schedule(**keys)(warmup / epochs) == 1.0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"WARMUP_EPOCHS": 240.0}, "WARMUP_EPOCHS must be from 0 to less than 240 .*; got 240.0"),
        ({"WARMUP_EPOCHS": -1.0}, "WARMUP_EPOCHS must be from 0 .* got -1.0"),
        ({"MILESTONES": (30, 30)}, r"MILESTONES must increase from 1; got \(30, 30\)"),
        ({"MILESTONES": [60, 30]}, r"MILESTONES must increase from 1; got \(60, 30\)"),
        ({"MILESTONES": (0, 30)}, r"MILESTONES must increase from 1; got \(0, 30\)"),
        ({"MILESTONES": (300, 250)}, r"MILESTONES must increase from 1; got \(300, 250\)"),
    ],
)
def test_bad_settings_are_refused(keys, message):
    with pytest.raises(ValueError, match=f"^SOLVER.{message}$"):
        schedule(EPOCHS=240, **keys)
