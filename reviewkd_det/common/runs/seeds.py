"""Seeds: mixed from several numbers, of a part of the work alone, of a run that goes on."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from reviewkd_det.common.config.plain_yaml import read_plain_yaml

__all__ = ["mix_seed", "saved_seed", "seeded"]


def mix_seed(*parts: int) -> int:
    """Mix integers of 0 or more into one seed; neighbours give unrelated random numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed the generators of the CPU for a block, and put their states back after it.

    Args:
        parts: numbers that the seed is mixed from.
    """
    seed = mix_seed(*parts)
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def saved_seed(config_file: Path, key: str) -> int | None:
    """The seed that the saved config of a run names; None where there is none.

    Args:
        config_file: `config.yaml` of the run, read as data only.
        key: dotted name of the seed in it.
    """
    if not config_file.is_file():
        return None
    value = read_plain_yaml(config_file)
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, int) else None
