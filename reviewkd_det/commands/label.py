"""Let a trained detector label images, as a COCO-format file.

python tools/label_images.py --config-file TEACHER.yaml --images FOLDER --output labels.json \
    (--score 0.5 | --calibration val.json IMAGE_FOLDER) [MODEL.WEIGHTS FILE ...]
"""

import argparse
from pathlib import Path

from reviewkd_det.common import entry_point, parse_before_options


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True, help="the detector's config, or a zoo name")
    parser.add_argument("--images", required=True, help="folder of images, its subfolders too")
    parser.add_argument("--output", type=Path, required=True, help="COCO-format file to write")
    scores = parser.add_mutually_exclusive_group(required=True)
    scores.add_argument("--score", type=float, help="least score of a label")
    scores.add_argument(
        "--calibration",
        nargs=2,
        metavar=("JSON", "FOLDER"),
        help="labelled images, on which the score of highest F1 is found for each class",
    )
    parser.add_argument("--keep-empty", action="store_true", help="keep images without any label")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier file")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs over the config")
    return parse_before_options(parser)


def check(args: argparse.Namespace) -> None:
    """Check what can be checked before anything that takes seconds to import.

    Raises:
        FileExistsError: the output is there.
        IsADirectoryError: the output is a folder.
        ValueError: the score or the number of processes is out of range.
    """
    if args.score is not None and not 0 < args.score <= 1:
        raise ValueError(f"--score must be above 0 and at most 1; got {args.score:g}")
    if args.workers < 0:
        raise ValueError(f"--workers must not be negative; got {args.workers}")
    if args.output.is_dir():
        raise IsADirectoryError(f"--output must be a file; got the folder '{args.output}'")
    if args.output.exists() and not args.overwrite:
        raise FileExistsError(
            f"--output must not exist; got '{args.output}'; add --overwrite to replace it"
        )


def label(args: argparse.Namespace) -> None:
    """Detect, find the scores, and write the file."""
    import torch
    from detectron2.utils.logger import setup_logger

    from reviewkd_det.d2.data import load_coco_format, load_image_folder
    from reviewkd_det.d2.labels.coco_file import StudentClasses
    from reviewkd_det.d2.labels.inputs import known_classes
    from reviewkd_det.d2.labels.make import label_sets
    from reviewkd_det.d2.labels.settings import LabelSettings
    from reviewkd_det.d2.labels.teacher import find_detecting_teacher
    from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names

    setup_logger(name="reviewkd_det")
    teacher = find_detecting_teacher(args.config_file, "", args.opts)
    calibration = []
    if args.calibration:
        json_file, folder = args.calibration
        calibration = load_coco_format(json_file, folder, json_file)
        classes = StudentClasses(*known_classes(json_file))
    else:
        names = teacher.classes or [f"class {i}" for i in range(teacher.count_classes())]
        classes = StudentClasses(names, range(1, len(names) + 1))
    label_sets(
        teacher,
        LabelSettings(score=args.score, keep_empty=args.keep_empty),
        classes,
        {args.output: (args.images, load_image_folder(args.images))},
        calibration,
        device="cuda" if torch.cuda.is_available() else "cpu",
        num_workers=args.workers,
    )


@entry_point
def main() -> None:
    """Label as the command line says."""
    args = parse_args()
    check(args)
    label(args)
