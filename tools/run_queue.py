"""Train what a queue lists and keep the record of each run beside the documentation.

python tools/run_queue.py benchmarks/queues/NAME.yaml    # docs/results/NAME.json
"""

import argparse
import sys
from pathlib import Path

from reviewkd_det.common import entry_point

ROOT = Path(__file__).resolve().parent.parent


@entry_point
def main() -> None:
    """Run the queue; started again, it goes on where it was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("queue", type=Path, help="YAML file: see benchmarks/run_queue.py")
    parser.add_argument("--output", type=Path, help="folder of the runs; output/NAME by default")
    parser.add_argument(
        "--untimed", action="store_true", help="leave out the seconds, where other work runs beside"
    )
    parser.add_argument("--commit", action="store_true", help="commit the record of each run")
    args = parser.parse_args()
    sys.path.append(str(ROOT))  # benchmarks are not installed
    from benchmarks.run_queue import read_queue, run_queue

    name = args.queue.stem
    runs = read_queue(args.queue, args.output or Path("output", name))
    records = ROOT / "docs" / "results" / f"{name}.json"
    if failed := run_queue(runs, records, timed=not args.untimed, commit=args.commit):
        raise RuntimeError(f"every run must succeed; got failures, see queue.log: {failed}")


if __name__ == "__main__":
    main()
