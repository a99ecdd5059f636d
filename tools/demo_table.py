"""Print the mean and the spread over several runs of the demo.

python tools/demo_table.py docs/results/demo_seed*.json
"""

import argparse
import json
from pathlib import Path

from reviewkd_det.common import one_sentence_errors


def main() -> None:
    """Read the summaries and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("summaries", nargs="+", type=Path, help="the runs' summary.json files")
    paths = parser.parse_args().summaries
    # What takes seconds to import comes after what is wrong with the arguments.
    from reviewkd_det.d2.demo_report import seeds_table

    print(seeds_table([json.loads(path.read_text(encoding="utf-8")) for path in paths]))


if __name__ == "__main__":
    one_sentence_errors(main)
