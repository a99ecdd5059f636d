"""Train or evaluate a detector, plain or distilled, with Detectron2's own arguments.

python tools/train_net.py --config-file configs/faster_rcnn_r50_r18.yaml [KEY VALUE ...]
"""

import argparse

from reviewkd_det.common import entry_point, parse_run_args


def train(args: argparse.Namespace) -> None:
    """One process of the run."""
    from reviewkd_det.d2.data.checks import check_classes, check_data
    from reviewkd_det.d2.runs.description import log_description
    from reviewkd_det.d2.runs.end import say_end, yaml_commands
    from reviewkd_det.d2.runs.start import read_config, started
    from reviewkd_det.d2.runs.trainer import Trainer
    from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
    from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names

    cfg = read_config(args)
    with started(cfg, args, cfg.OUTPUT_DIR, cfg.MODEL.DEVICE):
        check_data(cfg, training=not args.eval_only)
        if args.eval_only:
            model = Trainer.build_model(cfg)
            VerifiedCheckpointer(model, key="MODEL.WEIGHTS").load(cfg.MODEL.WEIGHTS)
        else:
            trainer = Trainer(cfg)
            check_classes(cfg, cfg.DATASETS.TRAIN)
            trainer.resume_or_load(resume=args.resume)
    if args.eval_only:
        Trainer.evaluate(cfg, model)
    else:
        log_description(trainer.model, cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE)
        trainer.train()
        say_end(trainer, cfg.OUTPUT_DIR, yaml_commands(cfg))


@entry_point
def main() -> None:
    """Train or evaluate as the command line says."""
    args = parse_run_args()
    # What takes seconds to import comes after what is wrong with the arguments.
    from reviewkd_det.d2.runs.start import run

    run(train, args)
