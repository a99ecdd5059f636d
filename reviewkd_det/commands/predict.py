"""Detect with a run, an exported folder or an ONNX file: images in, JSON and pictures out.

python tools/predict.py --model FOLDER --output predictions image.jpg folder_of_images ...
"""

import argparse
import itertools
import json
import re
from pathlib import Path
from typing import Any

from reviewkd_det.common import entry_point

CONFIGS = (".yaml", ".yml", ".py")


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, type=Path,
        help="config of a run, exported folder, or exported .onnx or .ts file",
    )  # fmt: skip
    parser.add_argument("--output", required=True, type=Path, help="folder that is written")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score (0.5)")
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        help="images at a time, of a run (1); those of other sizes are padded",
    )
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime; 0: all cores")
    parser.add_argument("--no-pictures", action="store_true", help="write the JSON alone")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier predictions")
    parser.add_argument("--weights", default="", help="checkpoint of a run other than its last one")
    parser.add_argument("images", nargs="+", help="image files and folders of images")
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Check what can be checked before anything that takes seconds to import.

    Raises:
        FileExistsError: the output has predictions.
        FileNotFoundError: the model is not there.
        ValueError: a number is out of range.
    """
    if not 0 <= args.threshold <= 1:
        raise ValueError(f"--threshold must be from 0 to 1; got {args.threshold:g}")
    if args.batch < 1:
        raise ValueError(f"--batch must be positive; got {args.batch}")
    if not args.model.exists():
        raise FileNotFoundError(f"--model must exist; got '{args.model}'")
    if (args.output / "predictions.json").exists() and not args.overwrite:
        raise FileExistsError(
            f"--output must not hold predictions; got '{args.output}'; add --overwrite to replace "
            "them"
        )


def open_model(args: argparse.Namespace) -> Any:
    """What has `detect`, from images to their detections, and the names of its `classes`.

    Raises:
        ValueError: the model is of no known kind.
    """
    from reviewkd_det.deploy.metadata import ONNX_FILE, TORCHSCRIPT_FILE
    from reviewkd_det.deploy.onnx_detector import OnnxDetector

    model = args.model
    if model.is_dir():
        names = (ONNX_FILE, TORCHSCRIPT_FILE, "config.yaml")
        model = next((model / x for x in names if (model / x).is_file()), model)
    if model.suffix == ".onnx":
        return OnnxDetector(model, threads=args.threads)
    if model.suffix not in (".ts", *CONFIGS):
        raise ValueError(
            "--model must be the config of a run, an exported folder, or an .onnx or .ts file; "
            f"got '{args.model}'"
        )
    from reviewkd_det.d2.exporting.predictor import RunDetector, ScriptDetector
    from reviewkd_det.d2.exporting.student import is_python_config
    from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names

    if model.suffix == ".ts":
        return ScriptDetector(model)
    opts = []
    if args.weights:
        is_python = is_python_config(model)
        key = "train.init_checkpoint"
        opts = [f"{key}={args.weights}"] if is_python else ["MODEL.WEIGHTS", args.weights]
    return RunDetector(str(model), opts)


def run(args: argparse.Namespace) -> None:
    """Check the arguments, detect, and write the JSON and the pictures."""
    check(args)
    from tqdm import tqdm

    from reviewkd_det.common import replace_file
    from reviewkd_det.deploy.draw import draw_detections
    from reviewkd_det.deploy.inputs import find_files, read_frames

    files = find_files(args.images)
    detector = open_model(args)
    classes = detector.classes
    args.output.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    frames = (x for path, name in tqdm(files, unit="file") for x in read_frames(path, name))
    while batch := list(itertools.islice(frames, args.batch)):
        for frame, every in zip(batch, detector.detect([x.image for x in batch]), strict=True):
            found, number = every.of_score(args.threshold), len(images) + 1
            height, width = frame.image.shape[:2]
            images.append({"id": number, "file_name": frame.name, "height": height, "width": width})
            for row in found.as_coco(number, range(1, len(classes) + 1)):
                annotations.append(_annotation(len(annotations) + 1, row))
            if not args.no_pictures:
                name = re.sub(r"[^\w.-]+", "_", frame.name).strip("_")
                draw_detections(frame.image, found, classes).save(
                    args.output / f"{number:06d}_{Path(name).stem}.png"
                )
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    text = json.dumps(content, ensure_ascii=False)
    replace_file(args.output / "predictions.json", lambda part: part.write_text(text, "utf-8"))
    print(f"{len(annotations)} detections in {len(images)} images: {args.output}/predictions.json")


def _annotation(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """A detection as an annotation of COCO's format, with its score."""
    _, _, width, height = row["bbox"]
    return {"id": number, **row, "area": width * height, "iscrowd": 0}


@entry_point
def main() -> None:
    """Detect as the command line says."""
    run(parse_args())


if __name__ == "__main__":
    main()
