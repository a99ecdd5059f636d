"""Train or evaluate a detector, plain or distilled, with Detectron2's own arguments.

python tools/train_net.py --config-file configs/faster_rcnn_r50_r18.yaml [KEY VALUE ...]
"""

import argparse

from reviewkd_det.common import entry_point, parse_run_args


def train(args: argparse.Namespace) -> None:
    """One process of the run."""
    from reviewkd_det.common.runs.lock import lock_folder
    from reviewkd_det.d2.data.checks import check_data
    from reviewkd_det.d2.labels.make import prepare_labels
    from reviewkd_det.d2.runs import from_yaml
    from reviewkd_det.d2.runs.description import log_description
    from reviewkd_det.d2.runs.end import log_end, yaml_commands
    from reviewkd_det.d2.runs.preflight import check_run
    from reviewkd_det.d2.runs.start import is_first_to_train, set_up_run
    from reviewkd_det.d2.runs.yaml_config import read_config
    from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names

    cfg = read_config(args)
    training = not args.eval_only
    with lock_folder(cfg.OUTPUT_DIR, needed=is_first_to_train(args)):
        with set_up_run(cfg, args, cfg.OUTPUT_DIR, cfg.MODEL.DEVICE) as record:
            check_run(cfg, training=training)
            record["classes"] = check_data(cfg, training=training, resume=args.resume)
            if training:
                labels = prepare_labels(cfg, resume=args.resume)
                trainer = from_yaml.build_trainer(cfg)
                from_yaml.keep_precision(cfg, trainer.model)
                trainer.resume_or_load(resume=args.resume)
        if not training:
            from_yaml.evaluate_checkpoint(cfg)
            return
        log_description(trainer.model, cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE, labels)
        from_yaml.train(trainer, cfg)
        log_end(trainer, lambda checkpoint: yaml_commands(cfg, checkpoint))


@entry_point
def main() -> None:
    """Train or evaluate as the command line says."""
    args = parse_run_args()
    # What takes seconds to import comes after what is wrong with the arguments.
    from reviewkd_det.d2.runs.start import run

    run(train, args)
