"""Write a page and a picture that compare any number of runs.

python tools/report.py output/demo/teacher output/demo/distilled plain=output/demo/baseline
"""

import argparse
from pathlib import Path

from reviewkd_det.common import one_sentence_errors


def main() -> None:
    """Read the runs and write their report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="+", metavar="[NAME=]FOLDER", help="output folder of a run, and its name"
    )
    parser.add_argument("--output", type=Path, default=Path("output/report.html"), help="the page")
    parser.add_argument("--png", type=Path, help="the picture; by default beside the page")
    args = parser.parse_args()
    # What takes seconds to import comes after what is wrong with the arguments.
    from reviewkd_det.d2.report import read_run, write_page

    runs = []
    for given in args.runs:
        name, is_named, folder = given.partition("=")
        named = is_named and not Path(given).is_dir()  # a folder's name may hold a =
        runs.append(read_run(Path(folder), name) if named else read_run(Path(given)))
    picture = args.png or args.output.with_suffix(".png")
    write_page(runs, args.output, picture)
    print(f"Page: {args.output}\nPicture: {picture}")


if __name__ == "__main__":
    one_sentence_errors(main)
