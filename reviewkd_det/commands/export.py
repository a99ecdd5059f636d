"""Write a trained student for use elsewhere: plain Detectron2, TorchScript or ONNX.

python tools/export_student.py --config-file output/RUN/config.yaml --output FOLDER --format onnx
"""

import argparse
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reviewkd_det.common import check_config_file, entry_point, parse_before_options

FORMATS = ("detectron2", "torchscript", "onnx")
CHECKED_IMAGES, CALIBRATION_IMAGES = 8, 100


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config-file", required=True, help="the run's config, a Python config's too"
    )
    parser.add_argument("--output", required=True, help="folder that is written")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    parser.add_argument(
        "--format", action="append", choices=FORMATS, dest="formats",
        help="what to write; several times for several, detectron2 without any",
    )  # fmt: skip
    parser.add_argument(
        "--size", default="", help="HEIGHTxWIDTH of the graphs' input; without it any size is taken"
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--precision", choices=("float32", "float16"), default="float32",
        help="of the weights of the ONNX file",
    )  # fmt: skip
    precision.add_argument(
        "--int8", action="store_true", help="convolutions of the ONNX file in 8-bit integers"
    )
    parser.add_argument(
        "--calibration", default="",
        help="folder of images that --int8 finds its ranges on; without it, those of "
        "DATASETS.TRAIN",
    )  # fmt: skip
    parser.add_argument(
        "--measure", action="store_true",
        help="measure teacher, student and files, parameters to milliseconds",
    )  # fmt: skip
    parser.add_argument(
        "--images", default="",
        help="folder of images on which graphs are checked; without it, those of DATASETS.TEST",
    )  # fmt: skip
    parser.add_argument(
        "--classes", default="", help="names of the classes, a,b,c, where the run has none"
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        help="KEY VALUE pairs, of a Python config path.key=value; MODEL.WEIGHTS, or "
        "train.init_checkpoint, names a checkpoint other than the run's last one",
    )
    return parse_before_options(parser)


def run(args: argparse.Namespace) -> None:
    """Load the student, verify that it is whole, and write the folder."""
    from reviewkd_det.d2.exporting.describe import class_names, describe_student
    from reviewkd_det.d2.exporting.folder import Export, write_folder
    from reviewkd_det.d2.exporting.gains import measure_gains
    from reviewkd_det.d2.exporting.student import load_student
    from reviewkd_det.d2.exporting.traced import check_exportable
    from reviewkd_det.d2.teacher.classes import count_object_classes
    from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names

    output, formats = Path(args.output), args.formats or ["detectron2"]
    size = _read_size(args.size)
    if not args.overwrite and output.exists() and any(output.iterdir()):
        raise FileExistsError(
            f"--output must not hold another export; got '{output}'; add --overwrite to replace it"
        )
    student = load_student(args.config_file, args.opts)
    detector = student.detector
    if student.plain is None and "detectron2" in formats:
        raise ValueError(
            "--format must be torchscript or onnx for a Python config, which Detectron2 reads from "
            f"Python alone; got {', '.join(formats)}"
        )
    has_graphs = formats != ["detectron2"]
    if has_graphs:
        check_exportable(detector)
    named = [x for x in args.classes.split(",") if x]
    classes = class_names(student, named, count_object_classes(detector))
    precision = "int8" if args.int8 else args.precision
    if precision != "float32" and "onnx" not in formats:
        raise ValueError(f"--precision and --int8 must be with --format onnx; got {formats}")
    metadata = describe_student(student, classes, size=size, precision=precision)
    images = (
        _find_images(args.images, "TEST", student.test, CHECKED_IMAGES)
        if has_graphs or args.measure
        else []
    )
    calibration = (
        _find_images(args.calibration, "TRAIN", student.train, CALIBRATION_IMAGES)
        if args.int8
        else []
    )
    truth = _find_truth(student.test)
    export = Export(detector, student.plain, metadata, images, calibration, truth)
    measure = partial(measure_gains, student=student, metadata=metadata, images=images, truth=truth)
    lines = write_folder(output, formats, export, measure=measure if args.measure else None)
    print(f"Exported {student.checkpoint} to {output}: {', '.join(sorted(_files(output)))}")
    for line in lines:
        print(line)


def _files(folder: Path) -> list[str]:
    return [f"{x.name} ({x.stat().st_size / 1e6:.2f} MB)" for x in folder.iterdir()]


def _read_size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise ValueError(f"--size must be HEIGHTxWIDTH in pixels, such as 320x320; got {text!r}")
    return int(match[1]), int(match[2])


def _find_truth(test: Sequence[str]) -> tuple[str, str] | None:
    """The COCO-format file and image folder of the first data set of DATASETS.TEST."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    names = [name for name in test[:1] if name in DatasetCatalog]
    if not names:
        return None
    known = MetadataCatalog.get(names[0])
    found = known.get("json_file"), known.get("image_root")
    return (str(found[0]), str(found[1])) if all(found) and Path(found[0]).is_file() else None


def _find_images(folder: str, use: str, data: Sequence[str], most: int) -> list[Any]:
    """Images of a folder, or of the data sets for a use, TRAIN or TEST, evenly.

    Raises:
        ValueError: there are none.
    """
    from detectron2.data import DatasetCatalog

    from reviewkd_det.deploy.images import read_image
    from reviewkd_det.deploy.inputs import image_files

    if folder:
        paths = image_files(folder)
    else:
        known = [name for name in data if name in DatasetCatalog]
        paths = [Path(x["file_name"]) for name in known for x in DatasetCatalog.get(name)]
    if not paths:
        where = f"none in '{folder}'" if folder else f"none in DATASETS.{use} {tuple(data)}"
        raise ValueError(
            f"a graph must be checked on images; got {where}; name some with --images FOLDER"
            if use == "TEST"
            else f"--int8 must see images; got {where}; name some with --calibration FOLDER"
        )
    step = max(len(paths) // most, 1)
    return [read_image(path) for path in paths[::step][:most]]


@entry_point
def main() -> None:
    """Export as the command line says."""
    args = parse_args()
    check_config_file(args.config_file)
    run(args)
