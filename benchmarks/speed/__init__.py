"""What distillation costs in time and memory, beside the same method written plainly."""

from benchmarks.speed.compare import benchmark
from benchmarks.speed.methods import costs_table, measure_methods
from benchmarks.speed.settings import Settings, checked_config
from benchmarks.speed.table import comparison_table

__all__ = [
    "Settings", "benchmark", "checked_config", "comparison_table", "costs_table", "measure_methods",
]  # fmt: skip
