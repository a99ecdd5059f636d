"""The one table of `benchmarks/gpu.sh`.

python -m benchmarks.gpu_table FOLDER
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

__all__ = ["gpu_table"]

HEADERS = ["measured", "", "value", "goal"]
FLOOR, TEXTBOOK, LOADER = 1.15, 0.4, 3.0  # goals: at most, at most, at least
Measured = Mapping[str, Any]  # contents of the JSON files by their names


def gpu_table(folder: Path) -> str:
    """What the files of a folder tell, in a table; what is missing there has no row.

    Args:
        folder: folder of the JSON files that the script has left.
    """
    files = sorted(folder.glob("*.json"))
    found = {x.stem: json.loads(x.read_text(encoding="utf-8")) for x in files}
    rows = [*_steps(found), *_classifiers(found), *_demos(found)]
    devices = {x["settings"]["device_name"] for x in found.values() if "settings" in x}
    table = tabulate(rows, HEADERS, "github", disable_numparse=True)
    return f"{table}\n\n{', '.join(sorted(devices))}"


def _steps(found: Measured) -> Iterator[list[str]]:
    for name, x in found.items():
        if "distilled_step" not in x:
            continue
        what = f"{name}, {x['settings']['batch']} images"
        yield [what, "distilled step, ms", f"{1000 * x['distilled_step']:.1f}", ""]
        yield [what, "of the floor", f"{x['distilled_to_floor']:.2f}", f"{FLOOR} at most"]
        pair = Path(x["settings"]["config"]).stem
        if (plain := found.get(f"{pair}_float32")) is not None:
            ratio = f"{x['distilled_step'] / plain['textbook_step']:.2f}"
            goal = f"{TEXTBOOK} at most" if x["settings"]["precision"] == "bfloat16" else ""
            yield [what, "of the textbook's step in float32", ratio, goal]


def _classifiers(found: Measured) -> Iterator[list[str]]:
    for name, x in found.items():
        if not name.startswith("classifier_"):
            continue
        speed = x["images_per_second"]
        yield [name, "images per second", f"{speed:,.0f}", ""]
        base = found.get("_".join(name.split("_")[:2]) + "_workers")
        if base is not None and base is not x:
            ratio = f"{speed / base['images_per_second']:.2f}"
            yield [name, "of the workers' loader", ratio, f"{LOADER} at least"]


def _demos(found: Measured) -> Iterator[list[str]]:
    demos = [x for name, x in found.items() if name.startswith("demo_")]
    for row in demos[0] if demos else ():
        scores = ", ".join(f"{x[row]['AP']:.1f}" for x in demos)
        yield [f"demo, {row}", "AP of each seed", scores, ""]
        seconds = ", ".join(f"{x[row]['train_seconds']:.0f}" for x in demos)
        yield [f"demo, {row}", "seconds of each seed", seconds, ""]


if __name__ == "__main__":
    print(gpu_table(Path(sys.argv[1])))
