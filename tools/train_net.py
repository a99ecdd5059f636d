"""Train or evaluate a detector, plain or distilled, with Detectron2's own arguments.

python tools/train_net.py --config-file configs/faster_rcnn_r50_r18.yaml [KEY VALUE ...]
"""

import argparse

from reviewkd_det.common import one_sentence_errors, parse_run_args


def train(args: argparse.Namespace) -> None:
    """One process of the run."""
    from reviewkd_det.d2.checkpoint import VerifiedCheckpointer
    from reviewkd_det.d2.cli import read_config, started
    from reviewkd_det.d2.data_checks import check_classes, check_data
    from reviewkd_det.d2.end_block import say_end, yaml_commands
    from reviewkd_det.d2.engine import Trainer
    from reviewkd_det.d2.start_line import say_start

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
        say_start(trainer.model, cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE)
        trainer.train()
        say_end(trainer, cfg.OUTPUT_DIR, yaml_commands(cfg))


def main() -> None:
    """Train or evaluate as the command line says."""
    args = parse_run_args()
    # What takes seconds to import comes after what is wrong with the arguments.
    from reviewkd_det.d2.cli import run

    run(train, args)


if __name__ == "__main__":
    one_sentence_errors(main)
