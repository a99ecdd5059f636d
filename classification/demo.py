"""Train a teacher, a student without it and the same student with it, and compare them.

Every run is one `classification/train.py` command on scikit-learn's digits; each is printed.
"""

import argparse
from pathlib import Path

from reviewkd_det.common import entry_point, parse_before_options


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", default="output/demo-classification", help="folder of the runs and the table"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of every run")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for every run")
    return parse_before_options(parser)


@entry_point
def main() -> None:
    """Run the demo and print its table."""
    args = parse_args()
    # What takes seconds to import comes after what is wrong with the arguments.
    from reviewkd_det.demo.classifiers import compare_classifiers

    output = Path(args.output).resolve()
    table = compare_classifiers(output, ["SEED", str(args.seed), *args.opts])
    print(f"\n{table}\n\nThe teacher saw more labels than the student. Runs: {output}")


if __name__ == "__main__":
    main()
