"""Every configuration key of ours, and reading a config file with clear errors."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from reviewkd_det.common import merge_file, merge_options
from reviewkd_det.common.config.aliases import declare_aliases, move_aliases, rename_options
from reviewkd_det.common.config.free_keys import FreeKeys
from reviewkd_det.common.config.methods import Uses, declare_methods, declared_fields, free_keys
from reviewkd_det.common.config.modules import import_modules, named_modules
from reviewkd_det.common.config.nested import flat
from reviewkd_det.common.config.presets import Presets
from reviewkd_det.core import AUTO, default_method, registered_methods
from reviewkd_det.d2.backbone import BUILDERS
from reviewkd_det.d2.backbone.pixels import set_pixels
from reviewkd_det.d2.own_configs import add_own_configs, find_own_configs
from reviewkd_det.d2.versions import declare_newer_keys, remove_newer_keys

__all__ = [
    "ALIASES",
    "ONE_STAGE",
    "TWO_STAGE",
    "add_backbone_config",
    "add_distill_config",
    "add_run_config",
    "get_config",
    "load_config",
    "plain_config",
    "presets",
]

# Which defaults of the methods' settings are those of detectors.
ONE_STAGE: Uses = ("one_stage", "detection")
TWO_STAGE: Uses = ("two_stage", "detection")
USES = (ONE_STAGE, TWO_STAGE)
# New names of keys by old ones, which are still understood.
ALIASES = {"MODEL.DISTILL.REVIEWKD.IN_FEATURES": "MODEL.DISTILL.IN_FEATURES"}
SCORE = "MODEL.DISTILL.TEACHER_LABELS.SCORE"
TEACHER_FILE = "MODEL.DISTILL.TEACHER.CONFIG_FILE"
OTHERS = "MODEL.DISTILL.TEACHER.OTHERS"


def add_distill_config(cfg: CfgNode) -> None:
    """Declare every key of distillation, with its default, in a Detectron2 config.

    Each registered method has a node of its settings, `MODEL.DISTILL.<METHOD>`.
    """
    cfg.MODEL.DISTILL = CfgNode()
    # The detector to train; MODEL.META_ARCHITECTURE is then "DistilledDetector".
    cfg.MODEL.DISTILL.STUDENT_META_ARCHITECTURE = "GeneralizedRCNN"
    # What the student learns from the teacher; () trains the plain student, without a teacher.
    cfg.MODEL.DISTILL.METHODS = (default_method(),)
    # Names of the pyramid levels compared; () takes every level both backbones output.
    cfg.MODEL.DISTILL.IN_FEATURES = ()
    # Parts of the student, such as proposal_generator or backbone.fpn_*, that start with the
    # teacher's weights where names and shapes agree.
    cfg.MODEL.DISTILL.INHERIT = ()

    # Published settings of one method for COCO, such as "coco/PKD": they set METHODS and the
    # method's keys, but for those given beside it or after it.
    cfg.MODEL.DISTILL.PRESET = ""

    cfg.MODEL.DISTILL.TEACHER = CfgNode()
    # Further teachers: [config, checkpoint] of each, given as the first's; each method learns from
    # all, and its loss is the mean. Labels are the first one's.
    cfg.MODEL.DISTILL.TEACHER.OTHERS = []
    # The teacher's own config: a path, relative to the file that names it, or a model-zoo name.
    cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE = ""
    # The teacher's checkpoint, as MODEL.WEIGHTS is given; "" takes the MODEL.WEIGHTS of its config,
    # and with the config.yaml of a run's folder the run's last checkpoint.
    cfg.MODEL.DISTILL.TEACHER.WEIGHTS = ""
    # Which entry or prefix of that file, such as "model_ema" or "teacher"; "" finds the teacher's.
    cfg.MODEL.DISTILL.TEACHER.WEIGHTS_ENTRY = ""
    # KEY VALUE pairs merged into the teacher's config.
    cfg.MODEL.DISTILL.TEACHER.OPTS = []
    # Of the teacher's backbone: "float32" (or what SOLVER.AMP makes of it), "bfloat16", "float16",
    # or "auto": bfloat16 where the device computes in it and the teacher's levels hardly change.
    cfg.MODEL.DISTILL.TEACHER.PRECISION = "float32"
    # Run the teacher's backbone through torch.compile, where it can be.
    cfg.MODEL.DISTILL.TEACHER.COMPILE = False
    # GB of main memory for the levels of images that the teacher has seen, in half precision, where
    # an augmentation shows them again as they were; 0.0 computes all.
    cfg.MODEL.DISTILL.TEACHER.CACHE = 0.0

    # Images without labels that take part in the distillation alone: names of data sets, whose
    # annotations are not read, and how many of their images join each batch, over all processes.
    cfg.DATASETS.UNLABELED = ()
    cfg.SOLVER.UNLABELED_PER_BATCH = 0

    cfg.MODEL.DISTILL.TEACHER_LABELS = CfgNode()
    # Before training the whole teacher detects on DATASETS.UNLABELED, and its detections become
    # labels of the student's own losses; with UNLABELED_PER_BATCH 0 they join DATASETS.TRAIN.
    cfg.MODEL.DISTILL.TEACHER_LABELS.ENABLED = False
    # Least score of a label: a number, or "auto", which finds that of highest F1 for each class.
    cfg.MODEL.DISTILL.TEACHER_LABELS.SCORE = "auto"
    # Names of labelled data sets on which "auto" finds it, better none that the teacher was trained
    # on; () takes DATASETS.TRAIN.
    cfg.MODEL.DISTILL.TEACHER_LABELS.CALIBRATION = ()
    # Lowest score that "auto" finds.
    cfg.MODEL.DISTILL.TEACHER_LABELS.MIN_SCORE = 0.2
    # Labelled objects that a class needs for a score of its own; below it has that of all classes.
    cfg.MODEL.DISTILL.TEACHER_LABELS.MIN_OBJECTS = 10
    # Train on images in which the teacher finds nothing as well.
    cfg.MODEL.DISTILL.TEACHER_LABELS.KEEP_EMPTY = False
    # How sure the teacher is, in the student's losses: "" not at all, "score" weights those of a
    # label by its score, "probabilities" makes the teacher's class probabilities the target.
    cfg.MODEL.DISTILL.TEACHER_LABELS.SOFT = ""
    # Folder of what teachers have detected, which runs share; "" is `detections` beside the
    # teacher's weights.
    cfg.MODEL.DISTILL.TEACHER_LABELS.CACHE = ""

    more = {"WARMUP_ITERS": 0, "DECAY_ITERS": 0, "DECAY_SHARE": AUTO}
    declare_methods(cfg.MODEL.DISTILL, USES, more)
    # A word or a number, where a config keeps the type of a value: None is the default.
    for name in registered_methods():
        cfg.MODEL.DISTILL[name.upper()].LOSS_WEIGHT = None
    declare_aliases(cfg, ALIASES)


def add_run_config(cfg: CfgNode) -> None:
    """Declare the keys of our trainer and its data, which have nothing to do with distillation."""
    # Your own code, imported before the config is read: names of modules, and paths of .py files
    # and packages, relative to the config file that names them; their functions add_*_config(cfg)
    # declare keys. Honoured in the config file that a command is given and on its command line,
    # not in a teacher's config.
    cfg.MODULES = []
    # Where the metrics go as well, of "wandb" and "mlflow", and the project or experiment there; ""
    # takes that of WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME, or "reviewkd_det".
    cfg.TRACKERS = []
    cfg.TRACKER_PROJECT = ""
    # Which entry or prefix of the file of MODEL.WEIGHTS, such as "model_ema" or "teacher"; ""
    # finds the student's.
    cfg.MODEL.WEIGHTS_ENTRY = ""
    # Your own data: [[name, COCO-format JSON file, image folder], ...], paths relative to the
    # working directory; the names can then stand in DATASETS.TRAIN and DATASETS.TEST.
    cfg.DATASETS.COCO_FORMAT = []
    # Your own data as Pascal VOC has it, of any classes: [[name, folder, split], ...]; the split is
    # a list of ImageSets/Main, or a folder of XML files and images.
    cfg.DATASETS.VOC_FORMAT = []
    # Your own data in YOLO's format: [[name, data.yaml, split], ...].
    cfg.DATASETS.YOLO_FORMAT = []
    # Folders of images for DATASETS.UNLABELED: [[name, folder], ...].
    cfg.DATASETS.IMAGE_FOLDERS = []
    # How images are looked at before a run: "full" decodes each once, which is remembered beside
    # the JSON file; "files" reads headers alone; "none" leaves what is wrong to the training.
    cfg.DATASETS.CHECK = "full"
    # Map classes by name where data sets, teacher or the run to resume have them in another order;
    # the first of DATASETS.TRAIN gives the order. Otherwise a difference is refused.
    cfg.DATASETS.MAP_CLASSES = False
    # Evaluate with faster-coco-eval, where it is installed: pycocotools' AP in less time.
    cfg.TEST.FAST_COCO_EVAL = True
    # Most images of a batch in an evaluation, which are of one size and follow each other.
    cfg.TEST.IMS_PER_BATCH = 1
    # The result whose highest value, at the evaluations of TEST.EVAL_PERIOD, makes model_best.pth;
    # of the first of several test sets, unless it names one, as in "my_val/bbox/AP".
    cfg.TEST.BEST_METRIC = "bbox/AP"
    # Evaluations in a row without a better TEST.BEST_METRIC after which training ends; 0: none.
    cfg.TEST.PATIENCE = 0
    # "SGD", Detectron2's own, or "AdamW", which ignores MOMENTUM and NESTEROV.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Parts that the images of an iteration, IMS_PER_BATCH and UNLABELED_PER_BATCH, are computed in,
    # one after the other, where memory is short. MAX_ITER counts the steps of the optimiser.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Decay, such as 0.999, of an average of the student's weights, which is evaluated and saved in
    # their place; 0 makes none.
    cfg.SOLVER.EMA_DECAY = 0.0
    # How many of the checkpoints of SOLVER.CHECKPOINT_PERIOD stay, the newest; 0 keeps all.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 0
    # Of SOLVER.AMP.ENABLED: "float16", with scaled gradients, "bfloat16", or "auto": float16 on a
    # GPU, as Detectron2 has it, and bfloat16 on a CPU. config.yaml names what was taken.
    cfg.SOLVER.AMP.PRECISION = "auto"
    # Let --resume go on with another teacher or other training data than the run has had.
    cfg.SOLVER.RESUME_WITH_CHANGES = False


def add_backbone_config(cfg: CfgNode) -> None:
    """Declare the keys of networks of timm and torchvision."""
    cfg.MODEL.TIMM = CfgNode()
    # timm's name of the network, or torchvision/NAME for one of torchvision's.
    cfg.MODEL.TIMM.NAME = ""
    # What the network begins with, where MODEL.WEIGHTS is empty: "" random weights, "pretrained"
    # the library's own, which are downloaded, "package" those of an installed package, or a file.
    cfg.MODEL.TIMM.WEIGHTS = ""
    # Which entry or prefix of that file, such as "state_dict_ema"; "" finds the network's.
    cfg.MODEL.TIMM.WEIGHTS_ENTRY = ""
    # Its batch norms: "" or "BN" as the library has them, "FrozenBN", "SyncBN".
    cfg.MODEL.TIMM.NORM = ""


def get_config() -> CfgNode:
    """Detectron2's defaults, ours, and those of the user's modules."""
    cfg = _our_config()
    add_own_configs(cfg)
    return cfg


def _our_config() -> CfgNode:
    cfg = get_cfg()
    add_distill_config(cfg)
    for name, method in registered_methods().items():
        weight = declared_fields(method.Settings, USES)["loss_weight"]
        cfg.MODEL.DISTILL[name.upper()].LOSS_WEIGHT = weight
    add_run_config(cfg)
    add_backbone_config(cfg)
    return cfg


def load_config(
    config_file: str | Path,
    opts: Sequence[str] = (),
    opts_source: str = "the command line",
    *,
    import_code: bool = False,
) -> CfgNode:
    """Read a config file and KEY VALUE pairs over Detectron2's defaults and ours.

    Args:
        config_file: a YAML file, with `_BASE_` as in Detectron2; it is read as data only, so
            `!!python` tags are refused.
        opts: alternating keys and values.
        opts_source: where they are from, for error sentences.
        import_code: whether to import what MODULES names first; for configs that the user of a
            command gives, and no others.

    Returns:
        The config, not frozen; a relative `MODEL.DISTILL.TEACHER.CONFIG_FILE` that a file names
        is resolved against that file, and a network of timm or torchvision sees images as it is to
        see them unless the keys of that are given.

    Raises:
        FileNotFoundError: the file or one of its bases does not exist.
        ValueError: a file is not a YAML mapping, a value has the wrong type, or the config asks
            for files that can run code.
        KeyError: a key is unknown; the sentence names the nearest known one.
    """
    modules = named_modules(config_file, opts) if import_code else []
    find_own_configs(import_modules(modules))
    cfg = get_config()
    newer = declare_newer_keys(cfg)
    free = FreeKeys(cfg, [SCORE, *free_keys("MODEL.DISTILL")])
    files = merge_file(cfg, config_file)
    free.take()
    teacher_file = cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE
    for path, content in files:
        if _get(content, TEACHER_FILE) == teacher_file and (path.parent / teacher_file).is_file():
            cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE = str((path.parent / teacher_file).resolve())
        if _get(content, OTHERS) == (others := cfg.MODEL.DISTILL.TEACHER.OTHERS) and others:
            cfg.MODEL.DISTILL.TEACHER.OTHERS = [
                [str((path.parent / x).resolve()) if (path.parent / x).is_file() else x, *rest]
                for x, *rest in others
            ]
    move_aliases(cfg, ALIASES, get_config(), files)
    merge_options(cfg, rename_options(opts, ALIASES), opts_source)
    given = [*opts[::2], *(key for _, content in files for key in flat(content))]
    remove_newer_keys(cfg, newer, given, config_file)
    free.take()
    student = cfg.MODEL.DISTILL.STUDENT_META_ARCHITECTURE
    presets().apply(cfg, files, opts, student=student)
    free.put_back()
    cfg.MODULES = modules
    if cfg.MODEL.BACKBONE.NAME in BUILDERS:
        set_pixels(cfg, given)
    if cfg.MODEL.LOAD_PROPOSALS:
        raise ValueError(
            "MODEL.LOAD_PROPOSALS must be False; got True; Detectron2 reads proposal files as "
            "pickles, which can run code"
        )
    return cfg


@cache
def presets() -> Presets:
    """The presets of detectors."""
    return Presets(Path(__file__).with_name("presets.yaml"), "MODEL.DISTILL")


def _get(content: object, key: str) -> object:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def plain_config(cfg: CfgNode) -> CfgNode:
    """The student's own config, without any key of ours that it can be built without."""
    plain = cfg.clone()
    plain.defrost()
    if cfg.MODEL.META_ARCHITECTURE == "DistilledDetector":
        plain.MODEL.META_ARCHITECTURE = cfg.MODEL.DISTILL.STUDENT_META_ARCHITECTURE
    stock = get_cfg()
    if cfg.MODEL.BACKBONE.NAME in BUILDERS:
        add_backbone_config(stock)
    _remove_unknown(plain, _our_config(), stock)
    return plain


def _remove_unknown(cfg: CfgNode, ours: CfgNode, stock: CfgNode) -> None:
    """Remove the keys that we declare and Detectron2 does not; other projects' keys stay."""
    for key in ours:
        if key not in cfg:
            continue
        if key not in stock:
            del cfg[key]
        elif isinstance(cfg[key], CfgNode):
            _remove_unknown(cfg[key], ours[key], stock[key])
