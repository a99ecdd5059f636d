"""Train a teacher, and a student on labels, on the teacher's labels and with distillation too.

python tools/demo.py [--full] [--seed N] [--output FOLDER] [KEY VALUE ...]

--full trains teacher and students near their plateau, in half an hour on 2 cores. Every run is one
`tools/train_net.py` command with a config of `configs/demo`; each is printed, and its log is in its
output folder.
"""

import argparse
from pathlib import Path

from reviewkd_det.common import entry_point, parse_before_options

DRAWN = ("plain", "teacher_labels", "all")  # the runs in the pictures


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="output/demo", help="folder of the runs and the report")
    parser.add_argument("--seed", type=int, default=1, help="seed of every run")
    parser.add_argument("--full", action="store_true", help="train near the plateau")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for every run")
    return parse_before_options(parser)


@entry_point
def main() -> None:
    """Run the demo, print its table, and write its report and pictures."""
    args = parse_args()
    # What takes seconds to import comes after what is wrong with the arguments.
    from reviewkd_det.demo.detectors import FULL, RUNS, compare_detectors
    from reviewkd_det.pictures import draw_pictures
    from reviewkd_det.report import read_run, write_page

    output = Path(args.output).resolve()
    print("Preparing the digit scenes; they are made once, in about 40 seconds", flush=True)
    lengths = FULL if args.full else ()
    table = compare_detectors(output, ["SEED", str(args.seed), *lengths, *args.opts])
    print(f"\n{table}\n")
    draw_pictures({name: output / name for name in DRAWN}, output / "pictures")
    runs = [read_run(output / name, row.title) for name, row in RUNS.items()]
    write_page(runs, output / "report.html", output / "comparison.png")
    print(f"What the runs detect: {output / 'pictures'}")
    print(f"Everything side by side: {output / 'report.html'}")
