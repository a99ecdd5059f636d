"""The arrows between the packages: tools -> d2 -> core <- classification, and no other.

`common` holds what d2 and classification share beside the method.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STANDARD = set(sys.stdlib_module_names)
DETECTION = {
    "PIL", "contourpy", "detectron2", "faster_coco_eval", "fvcore", "iopath", "jinja2",
    "matplotlib", "numpy", "omegaconf", "pycocotools",
    "sklearn", "tabulate", "torch", "torchvision", "yaml",
}  # fmt: skip
ALLOWED = {
    "reviewkd_det/core": {"torch", "reviewkd_det.core"},
    "reviewkd_det/common": {"fvcore", "numpy", "reviewkd_det.common", "torch", "yaml"},
    "reviewkd_det/d2": {
        *DETECTION, "reviewkd_det.common", "reviewkd_det.core", "reviewkd_det.d2",
    },
    "tools": {"reviewkd_det.common", "reviewkd_det.d2", "torch", "tqdm"},
    "classification": {
        "PIL", "accelerate", "classification", "fvcore", "numpy", "reviewkd_det.common",
        "reviewkd_det.core", "safetensors", "sklearn", "tabulate", "timm", "torch", "torchvision",
        "tqdm", "yaml",
    },
}  # fmt: skip


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from ((f"{node.module}.{a.name}" for a in node.names)
                        if node.module == "reviewkd_det" else [node.module])  # fmt: skip


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_package_imports_only_what_its_arrows_allow(folder):
    paths = list((ROOT / folder).rglob("*.py"))
    assert paths
    for path in paths:
        for module in imported(path):
            package = ".".join(module.split(".")[:2])
            allowed = {module.split(".")[0], package} & (STANDARD | ALLOWED[folder])
            assert allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_the_core_needs_neither_detectron2_nor_torchvision():
    code = (
        "import sys, reviewkd_det; assert 'torch' not in sys.modules;"
        "import reviewkd_det.core;"
        "heavy = {'detectron2', 'fvcore', 'torchvision'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_common_part_is_imported_without_torch():
    code = "import sys, reviewkd_det.common; assert not {'detectron2', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("word", ["detector", "cfg", "epoch", "COCO"])
def test_the_core_does_not_know(word):
    for path in (ROOT / "reviewkd_det" / "core").rglob("*.py"):
        text = path.read_text(encoding="utf-8").replace("reviewkd_det", "")
        assert word not in text, f"{path.relative_to(ROOT)} says {word}"
