"""What a resumed run of a classifier may change, and what it keeps."""

from pathlib import Path

from fvcore.common.config import CfgNode

from reviewkd_det.common.runs.changes import ResumeRules, Settled, saved_config, settle_changes

__all__ = ["settle_resume"]

ALLOW = "SOLVER.RESUME_WITH_CHANGES"
TEACHER = tuple(
    f"TEACHER.{key}"
    for key in ("NAME", "WEIGHTS", "WEIGHTS_ENTRY", "MEAN", "STD", "SIZE", "OTHERS")
)
RULES = ResumeRules(
    kept=(
        "SOLVER.OPTIMIZER",
        "SOLVER.MOMENTUM",
        "SOLVER.NESTEROV",
        "SOLVER.WEIGHT_DECAY",
        "MODEL.WEIGHTS",
        "MODEL.WEIGHTS_ENTRY",
    ),
    fixed=(
        *TEACHER,
        *(f"DATA.{key}" for key in ("NAME", "ROOT", "TRAIN_IMAGES", "SUBSET_SEED", "UNLABELED")),
    ),
    unused=("OUTPUT_DIR", "MODULES", ALLOW),
    allow=ALLOW,
)


def settle_resume(cfg: CfgNode, state_folder: Path) -> Settled | None:
    """Compare a config with that of the run in its output folder, and keep what cannot change.

    Args:
        cfg: config of the resumed run, frozen; what the run keeps is put back in place.
        state_folder: folder of the run's states.

    Returns:
        What has changed; None where the folder has no run to go on with.

    Raises:
        ValueError: the teacher or the training data is another one.
    """
    saved = saved_config(cfg.OUTPUT_DIR)
    if not saved or not state_folder.is_dir():
        return None
    now = cfg.clone()
    if not cfg.DISTILL.METHODS:  # nothing is taught, so no teacher is read
        now.defrost()
        del now["TEACHER"]
    settled = settle_changes(saved, now, RULES)
    cfg.defrost()
    cfg.merge_from_list([part for item in settled.kept.items() for part in item])
    cfg.freeze()
    return settled
