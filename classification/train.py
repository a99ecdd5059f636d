"""Train a classifier, alone or beside a teacher.

python classification/train.py --config-file classification/configs/digits/student.yaml
accelerate launch classification/train.py --config-file ...     # on several GPUs and machines
"""

import argparse
import sys

from reviewkd_det.common import CLASSIFIERS, entry_point, find_config, parse_before_options


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a classifier, alone or beside a teacher.")
    parser.add_argument(
        "--config-file", required=True, help="path of a config file, or name of a recipe"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on with the run in OUTPUT_DIR")
    start.add_argument("--overwrite", action="store_true", help="replace the run in OUTPUT_DIR")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs over the config")
    return parse_before_options(parser)


@entry_point
def main() -> None:
    """Train as the command line says."""
    args = parse_args()
    args.config_file = str(find_config(args.config_file, CLASSIFIERS))
    # What takes seconds to import comes after what is wrong with the arguments.
    from classification.runs.start import train_main

    if code := train_main(args):
        sys.exit(code)


if __name__ == "__main__":
    main()
