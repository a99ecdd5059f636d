"""What `benchmark` measured, as text."""

from typing import Any

from tabulate import tabulate

from benchmarks.speed.compare import MEMORY
from benchmarks.speed.settings import in_words

__all__ = ["comparison_table"]

DESCRIPTIONS = {
    "plain_step": "student alone",
    "teacher_backbone": "teacher's backbone, stock",
    "teacher": "teacher, ours",
    "distilled_step": "distilled step, ours",
    "textbook_step": "distilled step, textbook",
    "distillation": "fusions and loss, ours",
    "textbook_distillation": "fusions and loss, textbook",
    "hcl": "loss alone, ours",
    "textbook_hcl": "loss alone, textbook",
}
RATIOS = {
    "distilled_to_floor": "distilled step / (plain step + teacher's backbone)",
    "distilled_to_textbook": "distilled step, ours / textbook",
    "extra_memory_ratio": "memory above the plain step's, ours / textbook",
    "hcl_speedup": "loss alone, textbook / ours",
}


def comparison_table(results: dict[str, Any], *, markdown: bool = False) -> str:
    """What `benchmark` returned, as two tables and a sentence on what was measured."""
    form = "github" if markdown else "simple"
    rows = []
    for name, text in DESCRIPTIONS.items():
        least, most = results["spread"][name]
        memory = results.get(MEMORY.get(name, ""))
        rows.append([
            text,
            f"{1000 * results[name]:.1f}",
            f"{1000 * least:.1f} to {1000 * most:.1f}",
            "" if memory is None else f"{memory:.1f}",
        ])  # fmt: skip
    headers = ["part", "ms, median", "least to most", "peak memory, MB"]
    align = ("left", "right", "right", "right")
    first = tabulate(rows, headers, form, colalign=align, disable_numparse=True)
    numbers = [[text, f"{results[name]:.3f}"] for name, text in RATIOS.items()]
    for name in ("plain", "distilled", "textbook"):
        numbers.append([f"images per second, {name}", f"{results[f'{name}_images_per_s']:.2f}"])
    difference = f"{results['loss_relative_difference']:.1e}"
    numbers.append(["loss, ours against textbook: relative difference", difference])
    second = tabulate(
        numbers, ["", "value"], form, colalign=("left", "right"), disable_numparse=True
    )
    return f"{first}\n\n{second}\n\n{in_words(results['settings'])}"
