"""Draw what runs detect, side by side, and what a distilled one has of its teacher's levels.

python tools/visualize.py --run output/demo/plain --run output/demo/all \
    [--dataset NAME | --images FILE_OR_FOLDER ...] --output output/pictures
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from reviewkd_det.common import check_config_file, entry_point, split_named_folder


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run",
        action="append",
        required=True,
        dest="runs",
        metavar="[NAME=]FOLDER",
        help="output folder of a training, and what to call it; can be given several times",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--dataset", default="", help="a registered data set; the first run's test set by default"
    )
    source.add_argument("--images", nargs="+", type=Path, default=[], help="files or folders")
    parser.add_argument("--count", type=int, default=4, help="how many images, from the first")
    parser.add_argument("--score", type=float, default=0.5, help="least score of a detection")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    return parser.parse_args()


def named_runs(values: Sequence[str]) -> dict[str, Path]:
    """The folders of `--run` by their names; a folder's own name where none is given.

    Raises:
        FileNotFoundError: a folder holds no config.
        ValueError: two runs have one name, or a name cannot be part of a file's.
    """
    runs: dict[str, Path] = {}
    for value in values:
        given, folder = split_named_folder(value)
        name = folder.resolve().name if given is None else given
        if not name or Path(name).name != name:
            raise ValueError(f"--run NAME=FOLDER must have a name without '/'; got '{value}'")
        if name in runs:
            raise ValueError(f"--run names must differ; got '{name}' twice; give NAME=FOLDER")
        check_config_file(folder / "config.yaml", ", which --run names")
        runs[name] = folder
    return runs


def check(args: argparse.Namespace) -> None:
    """Check the rest before anything that takes seconds to import.

    Raises:
        FileNotFoundError: an image or a folder of images does not exist.
        ValueError: a number is out of range.
    """
    if args.count < 1:
        raise ValueError(f"--count must be at least 1; got {args.count}")
    if not 0 <= args.score <= 1:
        raise ValueError(f"--score must be from 0 to 1; got {args.score:g}")
    for path in args.images:
        if not path.exists():
            raise FileNotFoundError(f"--images must name what exists; got '{path}'")


@entry_point
def main() -> None:
    """Draw as the command line says, and print the pictures' names."""
    args = parse_args()
    runs = named_runs(args.runs)
    check(args)
    from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names
    from reviewkd_det.pictures import draw_pictures

    for path in draw_pictures(
        runs,
        args.output,
        dataset=args.dataset,
        images=args.images,
        count=args.count,
        min_score=args.score,
    ):
        print(path)
