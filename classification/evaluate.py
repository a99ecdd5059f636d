"""Test a classifier's checkpoint.

python classification/evaluate.py --config-file output/digits/student/config.yaml
"""

import argparse

from reviewkd_det.common import CLASSIFIERS, entry_point, find_config, parse_before_options


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Test a classifier's checkpoint.")
    parser.add_argument("--config-file", required=True, help="the config of its run")
    parser.add_argument(
        "--weights", default="", help="the checkpoint; without it, OUTPUT_DIR/last.pth"
    )
    parser.add_argument("--json", default="", help="also write the accuracy to this file")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs over the config")
    return parse_before_options(parser)


@entry_point
def main() -> None:
    """Test as the command line says."""
    args = parse_args()
    args.config_file = str(find_config(args.config_file, CLASSIFIERS))
    # What takes seconds to import comes after what is wrong with the arguments.
    from classification.runs.start import evaluate_main

    evaluate_main(args)


if __name__ == "__main__":
    main()
