"""Write a page and a picture that compare any number of runs.

python tools/report.py output/demo/teacher output/demo/plain everything=output/demo/all
"""

import argparse
from pathlib import Path

from reviewkd_det.common import entry_point, split_named_folder


@entry_point
def main() -> None:
    """Read the runs and write their report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="+", metavar="[NAME=]FOLDER",
        help="output folder of a run, and its name; also an exported folder that was measured",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("output/report.html"), help="the page")
    parser.add_argument("--png", type=Path, help="the picture; by default beside the page")
    args = parser.parse_args()
    # What takes seconds to import comes after what is wrong with the arguments.
    from reviewkd_det.report import read_run, write_page
    from reviewkd_det.report.exports import read_export

    named = [(folder, name or "") for name, folder in map(split_named_folder, args.runs)]
    exports = {place: read_export(*place) for place in named}
    runs = [read_run(*place) for place in named if exports[place] is None]
    picture = args.png or args.output.with_suffix(".png")
    write_page(runs, args.output, picture, [x for x in exports.values() if x is not None])
    print(f"Page: {args.output}\nPicture: {picture}")
