"""What distillation costs in time and memory, beside the same method written plainly."""

from benchmarks.speed.compare import benchmark
from benchmarks.speed.growth import Point, Pyramid, growth, read_pyramid
from benchmarks.speed.growth_picture import draw_growth, measure_growth
from benchmarks.speed.settings import Settings, checked_config
from benchmarks.speed.table import comparison_table

__all__ = [
    "Point",
    "Pyramid",
    "Settings",
    "benchmark",
    "checked_config",
    "comparison_table",
    "draw_growth",
    "growth",
    "measure_growth",
    "read_pyramid",
]
