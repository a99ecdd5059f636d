"""Random states go on where they were, through a checkpoint, in each process its own."""

import random

import numpy as np
import torch

from reviewkd_det.common.runs.random_state import random_state, restore_random_state
from reviewkd_det.common.runs.seeds import mix_seed, saved_seed, seeded


def draw():
    return random.random(), np.random.rand(), float(torch.rand(()))


def test_all_random_states_are_restored(tmp_path):
    torch.save([random_state()], tmp_path / "states.pth")
    expected = draw()
    restore_random_state(torch.load(tmp_path / "states.pth", weights_only=True), 0)
    assert draw() == expected


def test_each_process_restores_its_own_and_one_more_keeps_its_own():
    first = random_state()
    draw()
    second = random_state()
    expected = draw()
    restore_random_state([first, second], 1)
    assert draw() == expected
    before = torch.get_rng_state()
    restore_random_state([first, second], 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seeded_block_draws_the_same_and_leaves_the_states_alone():
    before = random_state()
    with seeded(3, 5):
        inside = draw()
    after = draw()
    restore_random_state([before], 0)
    assert draw() == after
    with seeded(3, 5):
        assert draw() == inside
    with seeded(5, 3):
        assert draw() != inside
    assert mix_seed(1, 2) != mix_seed(2, 1)


def test_the_seed_of_a_saved_config_is_found_beside_python_objects(tmp_path):
    path = tmp_path / "config.yaml"
    assert saved_seed(path, "SEED") is None
    path.write_text("SEED: 3\ntrain: {seed: 4, call: !!python/name:os.mkdir ''}\n")
    assert saved_seed(path, "SEED") == 3
    assert saved_seed(path, "train.seed") == 4
    assert saved_seed(path, "train.nothing") is None
