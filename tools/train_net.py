"""Train or evaluate a detector, plain or distilled, with Detectron2's own arguments.

python tools/train_net.py --config-file configs/faster_rcnn_r50_r18.yaml [KEY VALUE ...]
"""

import argparse

from reviewkd_det.d2.checkpoint import VerifiedCheckpointer
from reviewkd_det.d2.cli import parse_run_args, read_config, run, started
from reviewkd_det.d2.engine import Trainer, check_classes, check_data


def main(args: argparse.Namespace) -> None:
    """One process of the run."""
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
        trainer.train()


if __name__ == "__main__":
    run(main, parse_run_args())
