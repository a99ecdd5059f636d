"""Write a trained student as a plain Detectron2 checkpoint and config, free of reviewkd_det.

python tools/export_student.py --config-file output/RUN/config.yaml --output FOLDER
"""

import argparse
from pathlib import Path

from reviewkd_det.common import check_config_file, entry_point, parse_before_options


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True, help="the run's config")
    parser.add_argument("--output", required=True, help="folder for model.pth and config.yaml")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        help="KEY VALUE pairs; MODEL.WEIGHTS names a checkpoint other than the run's last one",
    )
    return parse_before_options(parser)


def export(config_file: str, output: Path, opts: list[str], *, overwrite: bool = False) -> None:
    """Load the student, verify that it is whole, and write `model.pth` and `config.yaml`."""
    import torch

    from reviewkd_det.d2.config import plain_config
    from reviewkd_det.d2.exported import exported_config, to_do_before_loading
    from reviewkd_det.d2.registered import build_model
    from reviewkd_det.d2.runs.checkpointer import last_checkpoint
    from reviewkd_det.d2.runs.saved_run import run_of_config
    from reviewkd_det.d2.runs.yaml_config import load_run_config
    from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
    from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names

    cfg = load_run_config(config_file, opts, any_device=True)
    weights_file, plain_file = output / "model.pth", output / "config.yaml"
    if not overwrite and (weights_file.exists() or plain_file.exists()):
        raise FileExistsError(
            f"--output must not hold another export; got '{output}'; add --overwrite to replace it"
        )
    plain = plain_config(cfg)
    plain.MODEL.DEVICE = "cpu"
    model = build_model(plain)
    given = opts[::2]
    entry = cfg.MODEL.WEIGHTS_ENTRY if "MODEL.WEIGHTS_ENTRY" in given else ""
    if "MODEL.WEIGHTS" not in given:
        own = None if "OUTPUT_DIR" in given else run_of_config(config_file)
        folder = own or cfg.OUTPUT_DIR  # a run may have been moved or copied
        cfg.MODEL.WEIGHTS = last_checkpoint(folder)
        if not cfg.MODEL.WEIGHTS:
            raise FileNotFoundError(
                f"OUTPUT_DIR must hold a checkpoint; got '{folder}'; or name one with "
                "MODEL.WEIGHTS FILE"
            )
    VerifiedCheckpointer(model, key="MODEL.WEIGHTS", entry=entry).load(cfg.MODEL.WEIGHTS)

    output.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, weights_file)
    plain.MODEL.DEVICE = cfg.MODEL.DEVICE
    plain.MODEL.WEIGHTS = str(weights_file.resolve())
    exported, left_out = exported_config(plain)
    plain_file.write_text(exported.dump(), encoding="utf-8")
    print(f"Exported {cfg.MODEL.WEIGHTS} to {weights_file} and {plain_file}")
    if left_out:
        print(f"Left out what only the training and a newer Detectron2 know: {', '.join(left_out)}")
    for line in to_do_before_loading(exported):
        print(line)


@entry_point
def main() -> None:
    """Export as the command line says."""
    args = parse_args()
    check_config_file(args.config_file)
    export(args.config_file, Path(args.output), args.opts, overwrite=args.overwrite)
