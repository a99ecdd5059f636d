"""Reading a config file with clear errors."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from reviewkd_det.common import merge_file, merge_options
from reviewkd_det.common.config.aliases import move_aliases, rename_options
from reviewkd_det.common.config.free_keys import FreeKeys
from reviewkd_det.common.config.methods import declared_fields, free_keys
from reviewkd_det.common.config.modules import import_modules, named_modules
from reviewkd_det.common.config.nested import flat
from reviewkd_det.common.config.presets import Presets
from reviewkd_det.core import registered_methods
from reviewkd_det.d2.backbone import BUILDERS
from reviewkd_det.d2.backbone.pixels import set_pixels
from reviewkd_det.d2.keys import (
    ALIASES,
    USES,
    add_backbone_config,
    add_distill_config,
    add_run_config,
)
from reviewkd_det.d2.own_configs import add_own_configs, find_own_configs
from reviewkd_det.d2.versions import declare_newer_keys, remove_newer_keys

__all__ = ["get_config", "load_config", "plain_config", "presets"]

SCORE = "MODEL.DISTILL.TEACHER_LABELS.SCORE"
TEACHER_FILE = "MODEL.DISTILL.TEACHER.CONFIG_FILE"
OTHERS = "MODEL.DISTILL.TEACHER.OTHERS"


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
