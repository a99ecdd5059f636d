"""Train generations of one network, each taught by the one before.

python classification/born_again.py --config-file digits/teacher.yaml --generations 3
"""

import argparse
import sys

from reviewkd_det.common import CLASSIFIERS, entry_point, find_config, parse_before_options


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train generations of one network, each taught by the one before."
    )
    parser.add_argument(
        "--config-file", required=True, help="path of a config file, or name of a recipe"
    )
    parser.add_argument(
        "--generations", type=int, default=3, help="how many are taught, after the first"
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs over the config, of all generations"
    )
    return parse_before_options(parser)


@entry_point
def main() -> None:
    """Train one generation after the other; a stopped one goes on."""
    args = parse_args()
    args.config_file = str(find_config(args.config_file, CLASSIFIERS))
    # What takes seconds to import comes after what is wrong with the arguments.
    from classification.runs.generations import train_generations

    if code := train_generations(args.config_file, args.generations, args.opts):
        sys.exit(code)


if __name__ == "__main__":
    main()
