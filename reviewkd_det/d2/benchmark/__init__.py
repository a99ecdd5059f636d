"""What distillation costs in time and memory, beside the same method written plainly."""

from reviewkd_det.d2.benchmark.compare import benchmark
from reviewkd_det.d2.benchmark.growth import Point, Pyramid, growth, read_pyramid
from reviewkd_det.d2.benchmark.growth_picture import draw_growth, measure_growth
from reviewkd_det.d2.benchmark.settings import Settings, checked_config
from reviewkd_det.d2.benchmark.table import comparison_table

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
