"""Every configuration key of ours, and reading a config file with clear errors."""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import detectron2
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

__all__ = ["add_distill_config", "find_teacher_config", "load_config", "ours_in", "plain_config"]

TEACHER_FILE = "MODEL.DISTILL.TEACHER.CONFIG_FILE"
OUR_CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def add_distill_config(cfg: CfgNode) -> None:
    """Declare every key of ours, with its default, in a Detectron2 config."""
    cfg.MODEL.DISTILL = CfgNode()
    # The detector to train; MODEL.META_ARCHITECTURE is then "DistilledDetector".
    cfg.MODEL.DISTILL.STUDENT_META_ARCHITECTURE = "GeneralizedRCNN"
    # What the student learns from the teacher; () trains the plain student, without a teacher.
    cfg.MODEL.DISTILL.METHODS = ("ReviewKD",)

    cfg.MODEL.DISTILL.TEACHER = CfgNode()
    # The teacher's own config: a path, relative to the file that names it, or a model-zoo name.
    cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE = ""
    # The teacher's checkpoint, as MODEL.WEIGHTS is given; "" takes the MODEL.WEIGHTS of its config.
    cfg.MODEL.DISTILL.TEACHER.WEIGHTS = ""
    # KEY VALUE pairs merged into the teacher's config.
    cfg.MODEL.DISTILL.TEACHER.OPTS = []

    cfg.MODEL.DISTILL.REVIEWKD = CfgNode()
    # Names of the pyramid levels compared; () takes every level both backbones output.
    cfg.MODEL.DISTILL.REVIEWKD.IN_FEATURES = ()
    # Channels shared by all attention fusions.
    cfg.MODEL.DISTILL.REVIEWKD.MID_CHANNELS = 256
    # Normalisation in the fusions: BN, SyncBN or GN.
    cfg.MODEL.DISTILL.REVIEWKD.NORM = "BN"
    # Factor of the summed loss of all levels.
    cfg.MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT = 1.0
    # Iterations over which that factor grows linearly from 0; 0 means none.
    cfg.MODEL.DISTILL.REVIEWKD.WARMUP_ITERS = 0

    # "none" compares with the teacher's features as they are; "rms" first divides each level by its
    # root mean square over the first batches, so that one LOSS_WEIGHT suits any teacher.
    cfg.MODEL.DISTILL.REVIEWKD.TEACHER_SCALE = "none"

    cfg.MODEL.DISTILL.DKD = CfgNode()
    # Weights of the target and the non-target part, and the temperature of the logits.
    cfg.MODEL.DISTILL.DKD.ALPHA = 1.0
    cfg.MODEL.DISTILL.DKD.BETA = 0.25
    cfg.MODEL.DISTILL.DKD.TEMPERATURE = 1.0

    # Parts of the student, such as proposal_generator or backbone.fpn_*, that start with the
    # teacher's weights where names and shapes agree.
    cfg.MODEL.DISTILL.INHERIT = ()

    # Your own data: [[name, COCO-format JSON file, image folder], ...], paths relative to the
    # working directory; the names can then stand in DATASETS.TRAIN and DATASETS.TEST.
    cfg.DATASETS.COCO_FORMAT = []
    # Images without labels that take part in the distillation alone: names of data sets, whose
    # annotations are not read, and how many of their images join each batch, over all processes.
    cfg.DATASETS.UNLABELED = ()
    cfg.SOLVER.UNLABELED_PER_BATCH = 0
    # Folders of images for DATASETS.UNLABELED: [[name, folder], ...].
    cfg.DATASETS.IMAGE_FOLDERS = []
    # "SGD", Detectron2's own, or "AdamW", which ignores MOMENTUM and NESTEROV.
    cfg.SOLVER.OPTIMIZER = "SGD"


def load_config(
    config_file: str | Path, opts: Sequence[str] = (), opts_source: str = "the command line"
) -> CfgNode:
    """Read a config file and KEY VALUE pairs over Detectron2's defaults and ours.

    Args:
        config_file: a YAML file, with `_BASE_` as in Detectron2; it is read as data only, so
            `!!python` tags are refused.
        opts: alternating keys and values.
        opts_source: where they are from, for error sentences.

    Returns:
        The config, not frozen; a relative `MODEL.DISTILL.TEACHER.CONFIG_FILE` that a file names
        is resolved against that file.

    Raises:
        FileNotFoundError: the file or one of its bases does not exist.
        ValueError: a file is not a YAML mapping, or a value has the wrong type.
        KeyError: a key is unknown; the sentence names the nearest known one.
    """
    cfg = get_cfg()
    add_distill_config(cfg)
    files = _with_bases(Path(config_file))
    _merge(cfg, lambda: cfg.merge_from_file(str(config_file), allow_unsafe=False), config_file)
    teacher_file = cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE
    for path, content in files:
        if _get(content, TEACHER_FILE) == teacher_file and (path.parent / teacher_file).is_file():
            cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE = str((path.parent / teacher_file).resolve())
    if len(opts) % 2:
        given = " ".join(map(str, opts))
        raise ValueError(f"options must be KEY VALUE pairs; got {given} in {opts_source}")
    _merge(cfg, lambda: cfg.merge_from_list(list(opts)), opts_source)
    return cfg


def _with_bases(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, dict]]:
    """The file and all its bases with their contents, the file itself last."""
    if not path.is_file():
        named_by = f", which {above[-1]} names as _BASE_" if above else ""
        raise FileNotFoundError(f"config file must exist; got '{path}'{named_by}")
    if path.resolve() in above:
        raise ValueError(f"_BASE_ must not lead back to its own file; got '{path}' again")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config file must be plain YAML; got '{path}': {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"config file must be a YAML mapping; got '{path}': {content!r:.80}")
    bases = content.get("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"_BASE_ must be a file name or a list of them; got {bases!r} in '{path}'")
    files = []
    for base in bases:
        if not base.startswith(("http://", "https://")):
            base_path = path.parent / Path(base).expanduser()
            files += _with_bases(base_path, (*above, path.resolve()))
    return [*files, (path, content)]


def _get(content: object, key: str) -> object:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _merge(cfg: CfgNode, merge: Callable[[], None], source: object) -> None:
    """Call `merge`, turning what yacs raises into one sentence that names the key."""
    try:
        merge()
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        unknown = re.search(r"Non-existent (?:config )?key: ([\w.]+)", str(error))
        if unknown is None:
            raise ValueError(f"config must fit Detectron2's; got {source}: {error}") from error
        near = difflib.get_close_matches(unknown[1], list(_keys(cfg)), n=1, cutoff=0.0)
        raise KeyError(
            f"config key must be known; got {unknown[1]} in {source}; the nearest is {near[0]}"
        ) from error


def _keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in cfg.items():
        yield f"{prefix}{key}"
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")


def find_teacher_config(name: str) -> Path:
    """Find the teacher's config file: a path, or a model-zoo name such as
    `COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml`, from Detectron2 or from `configs/teachers`.

    Raises:
        ValueError: no name is given.
        FileNotFoundError: nothing has that name.
    """
    if not name:
        raise ValueError(
            f"{TEACHER_FILE} must name the teacher's config file; got ''; to train without a "
            'teacher set MODEL.DISTILL.METHODS "()"'
        )
    zoo = Path(detectron2.__file__).parent / "model_zoo" / "configs"
    candidates = [Path(name), zoo / name, OUR_CONFIGS / "teachers" / name]
    for path in candidates:
        if path.is_file():
            return path
    shipped = sorted(
        str(p.relative_to(OUR_CONFIGS / "teachers"))
        for p in (OUR_CONFIGS / "teachers").rglob("*.yaml")
    )
    raise FileNotFoundError(
        f"{TEACHER_FILE} must name a config file or a model-zoo config; got '{name}'; "
        f"shipped: {', '.join(shipped)}"
    )


def ours_in(cfg: CfgNode) -> list[str]:
    """Names of the parts of a config that stock Detectron2 cannot build, because they are ours."""
    parts = [
        (META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE),
        (BACKBONE_REGISTRY, cfg.MODEL.BACKBONE.NAME),
    ]
    return [name for registry, name in parts if "reviewkd_det" in registry.get(name).__module__]


def plain_config(cfg: CfgNode) -> CfgNode:
    """The student's own config, without any key of ours."""
    plain = cfg.clone()
    plain.defrost()
    if cfg.MODEL.META_ARCHITECTURE == "DistilledDetector":
        plain.MODEL.META_ARCHITECTURE = cfg.MODEL.DISTILL.STUDENT_META_ARCHITECTURE
    del plain.MODEL["DISTILL"]
    for key in ("COCO_FORMAT", "IMAGE_FOLDERS", "UNLABELED"):
        del plain.DATASETS[key]
    for key in ("OPTIMIZER", "UNLABELED_PER_BATCH"):
        del plain.SOLVER[key]
    return plain
