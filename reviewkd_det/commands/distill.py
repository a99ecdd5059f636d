"""Make a smaller detector of a trained one in a given time, in one command.

python tools/distill.py --teacher output/teacher --labeled train.json images --val val.json images \
    --unlabeled more_images --student mobilenetv4_conv_small --hours 2 --output output/small

It labels the images without labels by the teacher, measures a step, trains for the time that is
left, evaluates, exports, and ends with a page. Each step is a command, which is printed and can be
run alone; a run that was stopped goes on where it was.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from reviewkd_det.common import entry_point, find_config, parse_before_options

# The recipes of a student that is named by its network.
LIGHT, OTHER_CHANNELS = "photos/student.yaml", "photos/student_other_channels.yaml"
MEASURED_ITERATIONS = 60
IMAGES_PER_GPU, IMAGES_ON_CPU = 4, 4
NAMES = "distill_labeled", "distill_val", "distill_unlabeled"


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--teacher", required=True, help="folder of its run, its config or zoo name"
    )
    pair = {"nargs": 2, "metavar": ("JSON", "IMAGES"), "required": True}
    parser.add_argument("--labeled", **pair, help="COCO-format file and its image folder")  # type: ignore[arg-type]
    parser.add_argument("--val", **pair, help="the same, on which the student is evaluated")  # type: ignore[arg-type]
    parser.add_argument(
        "--unlabeled", default="",
        help="folder of images without labels, or COCO-format file of some in --labeled's folder",
    )  # fmt: skip
    parser.add_argument(
        "--student", default="tf_efficientnet_lite0",
        help="config of a student, or a network of timm (tf_efficientnet_lite0)",
    )  # fmt: skip
    parser.add_argument("--hours", type=float, required=True, help="for all of it")
    parser.add_argument("--output", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the student")
    return parse_before_options(parser)


def check(args: argparse.Namespace) -> None:
    """Check what can be checked before anything that takes seconds to import.

    Raises:
        FileNotFoundError: a file or folder is not there.
        ValueError: there is no time.
    """
    if not args.hours > 0:
        raise ValueError(f"--hours must be positive; got {args.hours:g}")
    for word, path in (
        *(("--labeled", x) for x in args.labeled), *(("--val", x) for x in args.val),
        *([("--unlabeled", args.unlabeled)] if args.unlabeled else []),
    ):  # fmt: skip
        if not Path(path).exists():
            raise FileNotFoundError(f"{word} must exist; got '{path}'")


def lists_images(path: str) -> bool:
    """Whether it is a file that lists images, and no folder."""
    return Path(path).suffix == ".json"


def student_options(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The config of the student, and the options of all its trainings.

    Raises:
        FileNotFoundError: the student's config does not exist.
        ValueError: the labelled file has no categories.
    """
    named = Path(args.student).suffix not in (".yaml", ".yml")
    config = find_config(LIGHT if named else args.student)
    content = json.loads(Path(args.labeled[0]).read_text(encoding="utf-8"))
    if not content.get("categories"):
        raise ValueError(f"--labeled must have categories; got none in '{args.labeled[0]}'")
    count = len(content["categories"])
    teacher = Path(args.teacher)
    files = [[NAMES[0], *args.labeled], [NAMES[1], *args.val]]
    if lists_images(args.unlabeled):
        files.append([NAMES[2], args.unlabeled, args.labeled[1]])
    options = [
        "DATASETS.COCO_FORMAT", json.dumps(files), "DATASETS.TRAIN", str((NAMES[0],)),
        "DATASETS.TEST", str((NAMES[1],)), "MODEL.ROI_HEADS.NUM_CLASSES", str(count),
        "MODEL.RETINANET.NUM_CLASSES", str(count), "MODEL.DISTILL.TEACHER.CONFIG_FILE",
        str(teacher / "config.yaml" if teacher.is_dir() else teacher),
        "MODEL.DISTILL.TEACHER.WEIGHTS", "", "TEST.EVAL_PERIOD", "0",
    ]  # fmt: skip
    if args.unlabeled:
        options += ["DATASETS.UNLABELED", str((NAMES[2],))]
    if args.unlabeled and not lists_images(args.unlabeled):
        options += ["DATASETS.IMAGE_FOLDERS", json.dumps([[NAMES[2], args.unlabeled]])]
    options += ["MODEL.DISTILL.TEACHER_LABELS.ENABLED", str(bool(args.unlabeled))]
    if named:
        options += ["MODEL.TIMM.NAME", args.student]
        options += [] if args.student.startswith("tf_eff") else ["MODEL.TIMM.WEIGHTS", ""]
    return str(config), [*options, *args.opts]


def has_other_channels(cfg: Any) -> bool:
    """Whether a teacher's levels have other channels than those of its student.

    Args:
        cfg: config of the student.
    """
    from reviewkd_det.d2.teacher.source import read_teacher

    levels = read_teacher(cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE).build_backbone().output_shape()
    return {level.channels for level in levels.values()} != {cfg.MODEL.FPN.OUT_CHANNELS}


def run(args: argparse.Namespace) -> None:
    """Take all steps that are not done yet."""
    from reviewkd_det.common.runs.budget import Measured, choose_schedule, fit_batch
    from reviewkd_det.common.runs.steps import Steps

    check(args)
    config, options = student_options(args)
    steps = Steps(args.output / "distill.json", args.hours)
    first, measured, student = (args.output / x for x in ("labels", "measured", "student"))
    train = "tools/train_net.py"

    if "batch" not in steps.state:
        import torch
        from detectron2.utils.logger import setup_logger

        from reviewkd_det.d2 import load_config

        setup_logger(name="reviewkd_det")
        cfg = load_config(config, options)
        most = IMAGES_PER_GPU * torch.cuda.device_count() or IMAGES_ON_CPU
        adaptive = cfg.SOLVER.OPTIMIZER != "SGD"
        batch, rate = fit_batch(
            cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, most, adaptive=adaptive
        )
        if config == str(find_config(LIGHT)) and has_other_channels(cfg):
            config = str(find_config(OTHER_CHANNELS))
        steps.state |= {
            "config": config, "batch": batch, "rate": rate, "warmup": cfg.SOLVER.WARMUP_ITERS,
        }  # fmt: skip
    state = steps.state
    config = state.get("config", config)
    options += ["SOLVER.IMS_PER_BATCH", str(state["batch"]), "SOLVER.BASE_LR", f"{state['rate']:g}"]

    short = ["--config-file", config, "--overwrite"]
    steps.run(
        "label", train, *short, "OUTPUT_DIR", first, *options, "SOLVER.MAX_ITER", 1,
        "DATASETS.TEST", "()",
    )  # fmt: skip
    steps.run(
        "measure", train, *short, "OUTPUT_DIR", measured, *options, "SOLVER.MAX_ITER",
        MEASURED_ITERATIONS,
    )  # fmt: skip
    if "iterations" not in state:
        found = read_measured(measured, state["seconds"]["measure"], args)
        schedule = choose_schedule(steps.seconds_left, Measured(*found), state["batch"])
        state |= {"iterations": schedule.iterations, "is_whole": schedule.is_whole}
        steps.save()
    count = state["iterations"]
    more = "as many as a training needs" if state["is_whole"] else "what the time allows"
    print(f"\n{count} iterations of {state['batch']} images: {more}")
    resume = ["--resume"] if any(student.glob("*.pth")) else []
    steps.run(
        "train", train, "--config-file", config, *resume, "OUTPUT_DIR", student, *options,
        "SOLVER.MAX_ITER", count, "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR",
        "SOLVER.WARMUP_ITERS", min(state["warmup"], count // 10), "SOLVER.CHECKPOINT_PERIOD",
        max(count // 10, 50), "SOLVER.CHECKPOINTS_TO_KEEP", 1,
    )  # fmt: skip
    steps.run(
        "export", "tools/export_student.py", "--config-file", student / "config.yaml", "--output",
        args.output / "exported", "--overwrite", "--format", "detectron2", "--format", "onnx",
        "--measure",
    )  # fmt: skip
    page = args.output / "report.html"
    # The teacher's own run may have been evaluated on other data; the export tells its AP on these.
    steps.run(
        "report", "tools/report.py", "--output", page, f"student={student}",
        args.output / "exported",
    )  # fmt: skip
    print(f"\nDone with {steps.seconds_left / 3600:.2f} h left: {args.output / 'exported'}, {page}")


def read_measured(folder: Path, wall: float, args: argparse.Namespace) -> tuple[float, float, int]:
    """Seconds of an iteration, of start and evaluation, and the images trained on.

    Args:
        folder: folder of the run that was measured.
        wall: seconds that it took.
        args: the command line.
    """
    from reviewkd_det.deploy.inputs import image_files

    rows = [json.loads(x) for x in (folder / "metrics.json").read_text("utf-8").splitlines()]
    steps = [row["time"] for row in rows if "time" in row]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    listed = [args.labeled[0], *([args.unlabeled] if lists_images(args.unlabeled) else [])]
    images = sum(len(json.loads(Path(x).read_text(encoding="utf-8"))["images"]) for x in listed)
    if args.unlabeled and args.unlabeled not in listed:
        images += len(image_files(args.unlabeled))
    return steps[-1], max(wall - summary["train_seconds"], 0.0), images


@entry_point
def main() -> None:
    """Distil as the command line says."""
    run(parse_args())


if __name__ == "__main__":
    main()
