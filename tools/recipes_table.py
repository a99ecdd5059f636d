"""Print the table of docs/recipes.md: what each recipe compares, its sizes and what it costs.

python tools/recipes_table.py [--size 256 384] [--repeats 5] [configs/RECIPE.yaml ...]
"""

import argparse
import sys
from pathlib import Path

from reviewkd_det.common import entry_point

ROOT = Path(__file__).resolve().parent.parent


@entry_point
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "recipes", nargs="*", type=Path, default=sorted(ROOT.glob("configs/*.yaml"))
    )
    parser.add_argument("--size", nargs=2, type=int, default=(256, 384), help="height and width")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each kind")
    args = parser.parse_args()
    # What takes seconds to import comes after what is wrong with the arguments.
    sys.path.append(str(ROOT))  # benchmarks are not installed
    from benchmarks.recipes import recipes_table

    print(recipes_table(args.recipes, tuple(args.size), args.repeats))


if __name__ == "__main__":
    main()
