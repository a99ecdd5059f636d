"""Every configuration key of ours, with its default and what it means."""

from detectron2.config import CfgNode

from reviewkd_det.common.config.aliases import declare_aliases
from reviewkd_det.common.config.methods import Uses, declare_methods
from reviewkd_det.core import AUTO, default_method, registered_methods

__all__ = [
    "ALIASES",
    "ONE_STAGE",
    "TWO_STAGE",
    "USES",
    "add_backbone_config",
    "add_distill_config",
    "add_run_config",
]

# Which defaults of the methods' settings are those of detectors.
ONE_STAGE: Uses = ("one_stage", "detection")
TWO_STAGE: Uses = ("two_stage", "detection")
USES = (ONE_STAGE, TWO_STAGE)
# New names of keys by old ones, which are still understood.
ALIASES = {"MODEL.DISTILL.REVIEWKD.IN_FEATURES": "MODEL.DISTILL.IN_FEATURES"}


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
    # Of the teacher's backbone: "auto", bfloat16 where the device computes in it and the teacher's
    # levels hardly change, "float32" (or what SOLVER.AMP makes of it), "bfloat16" or "float16".
    cfg.MODEL.DISTILL.TEACHER.PRECISION = "auto"
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
    # Most images of a batch in an evaluation, which are of one size and follow each other; in a
    # teacher's config, where it labels too.
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
