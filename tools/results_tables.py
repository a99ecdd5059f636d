"""Keep what detection runs measured as small JSON files, and write the tables of a page from them.

python tools/results_tables.py --save docs/results/NAME.json [ROW=]FOLDER ...   # one file
python tools/results_tables.py                                                  # all tables

A table stands between `<!-- table: NAME ... -->`, which names files of the folder `results` beside
the page, and `<!-- end -->`. `<!-- time: NAME TIMED -->` begins one of the time to an accuracy, by
two files, and `<!-- figure: NAME TIMED -->` draws `images/NAME.png` of them.
"""

import argparse
import re
import sys
from pathlib import Path

from reviewkd_det.common import entry_point, split_named_folder

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"
TABLE = re.compile(
    r"(<!-- (?P<kind>table|time): (?P<names>[\w ]+) -->\n).*?<!-- end -->", re.DOTALL
)
FIGURE = re.compile(r"<!-- figure: (?P<name>\w+) (?P<timed>\w+) -->")
DPI = 110


def write_tables(page: Path) -> None:
    """Replace every table of a page by that of the files that it names, and draw its figures."""
    from benchmarks.lengths import time_table
    from benchmarks.lengths_figure import draw_lengths
    from benchmarks.records import read_records, seeds_table
    from reviewkd_det.report.figures import style

    def table(found: re.Match[str]) -> str:
        files = [read_records(page.parent / "results", name) for name in found["names"].split()]
        if found["kind"] == "time":
            lengths, timed = files
            written = time_table(lengths, timed)
        else:
            written = seeds_table([x for file in files for x in file])
        return f"{found[1]}\n{written}\n\n<!-- end -->"

    text = page.read_text(encoding="utf-8")
    page.write_text(TABLE.sub(table, text), encoding="utf-8")
    for found in FIGURE.finditer(text):
        records, timed = (read_records(page.parent / "results", name) for name in found.groups())
        path = page.parent / "images" / f"{found['name']}.png"
        path.parent.mkdir(exist_ok=True)
        with style():
            draw_lengths(records, timed).savefig(path, dpi=DPI)


def save_records(path: Path, runs: list[str], *, timed: bool) -> None:
    """Write the file of some output folders."""
    from benchmarks.records import record, write_file
    from reviewkd_det.report import read_run

    named = map(split_named_folder, runs)
    write_file(path, [record(read_run(folder, row or ""), timed=timed) for row, folder in named])


@entry_point
def main() -> None:
    """Save runs, or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", type=Path, metavar="FILE", help="write this file of the runs")
    parser.add_argument(
        "--untimed", action="store_true", help="leave out the seconds, where other work ran beside"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="with the tables to write")
    parser.add_argument("runs", nargs="*", metavar="[ROW=]FOLDER", help="output folders of runs")
    args = parser.parse_args()
    sys.path.append(str(ROOT))  # benchmarks are not installed
    if bool(args.save) != bool(args.runs):
        parser.error("--save and the folders of runs must be given together")
    if args.save:
        save_records(args.save, args.runs, timed=not args.untimed)
    else:
        write_tables(args.page)


if __name__ == "__main__":
    main()
