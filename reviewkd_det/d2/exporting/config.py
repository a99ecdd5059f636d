"""The config of an exported student: only what differs from Detectron2's defaults."""

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)

from reviewkd_det.common.config.nested import flat
from reviewkd_det.d2.compat import NEEDED_TO_DETECT, NEWER_KEYS
from reviewkd_det.d2.own_configs import add_own_configs, own_config_names

__all__ = ["exported_config", "foreign_parts", "to_do_before_loading"]

NETWORK = "MODEL.TIMM"
REGISTRIES = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.RPN.HEAD_NAME": RPN_HEAD_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": ROI_KEYPOINT_HEAD_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    "MODEL.SEM_SEG_HEAD.NAME": SEM_SEG_HEADS_REGISTRY,
}


def exported_config(plain: CfgNode) -> tuple[CfgNode, list[str]]:
    """Reduce a student's own config to what its reader does not have as a default.

    Release 0.6 of Detectron2 and its main branch read the result, unless the detector itself needs
    a key that release 0.6 does not know.

    Args:
        plain: config without any key of ours.

    Returns:
        The config, and the keys that were left out since release 0.6 does not know them and only
        the training needed them.
    """
    stock, own = flat(get_cfg()), flat(_with_own_configs())
    reduced: dict[str, Any] = {"VERSION": plain.VERSION}
    left_out = []
    for key, value in flat(plain).items():
        if all(
            key in default and _listed(default[key]) == _listed(value) for default in (stock, own)
        ):
            continue
        if key.startswith(f"{NETWORK}.WEIGHTS"):  # which a whole checkpoint stands for
            continue
        if key in NEWER_KEYS and key not in NEEDED_TO_DETECT:
            left_out.append(key)
        else:
            reduced[key] = value
    return CfgNode(_nested(reduced)), left_out


def to_do_before_loading(exported: CfgNode) -> list[str]:
    """What the reader of an exported config must do first, in one sentence each."""
    values, stock = flat(exported), flat(get_cfg())
    lines = [
        f"{name} is not Detectron2's own: `import {module}` before loading it"
        for name, module in foreign_parts(exported).items()
    ]
    if unknown := [key for key in values if key not in stock and key not in NEWER_KEYS]:
        functions = own_config_names()
        if any(key.startswith(f"{NETWORK}.") for key in unknown):
            functions.insert(0, "reviewkd_det.d2.add_backbone_config")
        names = ", ".join(functions)
        lines.append(f"{unknown[0]} is not Detectron2's own: call {names} before reading it")
    if newer := [key for key in NEEDED_TO_DETECT if key in values]:
        lines.append(f"{', '.join(newer)} needs a Detectron2 newer than release 0.6")
    return lines


def foreign_parts(cfg: CfgNode) -> dict[str, str]:
    """The parts of a config that stock Detectron2 cannot build, and what to import for them."""
    values = flat(cfg)
    found: dict[str, str] = {}
    for key, registry in REGISTRIES.items():
        name = values.get(key, "")
        if name in registry:
            root, *inner = registry.get(name).__module__.split(".")
            if root == "reviewkd_det":
                found[name] = "reviewkd_det.d2"
            elif root != "detectron2":
                found[name] = ".".join([root, *inner])
            elif inner[:1] == ["projects"]:
                found[name] = ".".join([root, *inner[:2]])
    return found


def _listed(value: Any) -> Any:
    """A value whose tuples are lists, as YAML has them."""
    return [_listed(x) for x in value] if isinstance(value, list | tuple) else value


def _with_own_configs() -> CfgNode:
    cfg = get_cfg()
    add_own_configs(cfg)
    return cfg


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings of values by dotted name."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree
