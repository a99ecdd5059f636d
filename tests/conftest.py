"""How the tests run: one thread for each process, and an end to whatever hangs."""

import os

import pytest

# Before torch is imported, and for the processes that tests start as well: two workers of one
# thread each are faster than two that take all cores from each other.
os.environ["OMP_NUM_THREADS"] = "1"

SLOW_SECONDS = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests a longer time limit than pyproject.toml gives to all."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
