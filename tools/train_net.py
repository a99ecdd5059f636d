"""Train or evaluate a detector, plain or distilled, with Detectron2's own arguments.

python tools/train_net.py --config-file configs/faster_rcnn_r50_r18.yaml [KEY VALUE ...]
"""

import argparse

from reviewkd_det.d2.checkpoint import VerifiedCheckpointer
from reviewkd_det.d2.cli import parse_run_args, run, setup
from reviewkd_det.d2.engine import Trainer, check_data


def main(args: argparse.Namespace) -> None:
    """One process of the run."""
    cfg = setup(args)
    check_data(cfg, training=not args.eval_only)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        VerifiedCheckpointer(model, key="MODEL.WEIGHTS").load(cfg.MODEL.WEIGHTS)
        Trainer.test(cfg, model)
        return
    trainer = Trainer(cfg, overwrite=args.overwrite)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


if __name__ == "__main__":
    run(main, parse_run_args())
