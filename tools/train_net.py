"""Train or evaluate a detector, plain or distilled, with Detectron2's own arguments.

python tools/train_net.py --config-file configs/faster_rcnn_r50_r18.yaml [--num-gpus N] [KEY VALUE ...]
"""

import argparse

from detectron2.engine import default_argument_parser, launch
from detectron2.utils import comm

from reviewkd_det.d2.checkpoint import VerifiedCheckpointer
from reviewkd_det.d2.cli import run, run_files, setup
from reviewkd_det.d2.engine import Trainer, check_classes


def parse_args() -> argparse.Namespace:
    """Detectron2's arguments and --overwrite."""
    parser = default_argument_parser()
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run that OUTPUT_DIR holds"
    )
    args = parser.parse_args()
    if not args.config_file:
        parser.error("--config-file must name a config file")
    if args.resume and args.overwrite:
        parser.error("--resume and --overwrite exclude each other")
    return args


def main(args: argparse.Namespace) -> None:
    """One process of the run."""
    cfg = setup(args)
    if args.eval_only:
        check_classes(cfg, list(cfg.DATASETS.TEST))
        model = Trainer.build_model(cfg)
        VerifiedCheckpointer(model, key="MODEL.WEIGHTS").load(cfg.MODEL.WEIGHTS)
        Trainer.test(cfg, model)
        return
    check_classes(cfg, [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    trainer = Trainer(cfg)
    if args.overwrite and comm.is_main_process():
        for path in run_files(cfg.OUTPUT_DIR):
            path.unlink()
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


if __name__ == "__main__":
    arguments = parse_args()
    run(
        lambda: launch(
            main,
            arguments.num_gpus,
            num_machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
            args=(arguments,),
        )
    )
