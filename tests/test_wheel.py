"""The project as a user installs it: a wheel in a fresh environment, far from the checkout.

The environment sees the packages of this one, so nothing is downloaded.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import detectron2
import pytest

import reviewkd_det
from reviewkd_det.common.console.commands import ENTRY_POINTS
from reviewkd_det.demo.digit_scenes import write_digit_scenes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("reviewkd_det", "classification", "configs", "setup.py", "pyproject.toml", "README.md")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
SHORT = ["SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "0", "SOLVER.IMS_PER_BATCH", "2"]


class Home:
    """A folder of a user who has installed the wheel."""

    def __init__(self, folder):
        self.folder = folder
        self.programs = folder / "env" / "bin"
        self.work = folder / "work"
        self.work.mkdir()
        write_digit_scenes(
            str(folder / "data" / "digit_scenes"), {"train": 160, "val": 4, "dev": 4}
        )

    def install(self):
        """Build the wheel from a copy of the sources, and install it."""
        source, wheels = self.folder / "source", self.folder / "wheels"
        source.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name)
        offline = ["--quiet", "--no-deps", "--no-index"]
        build = [*PIP, "wheel", *offline, "--no-build-isolation", "--wheel-dir", wheels, source]
        subprocess.run(build, check=True)
        venv.create(self.folder / "env", with_pip=False)
        python = self.programs / "python"
        subprocess.run(
            [*PIP, "--python", python, "install", *offline, *wheels.iterdir()], check=True
        )
        (packages,) = (self.folder / "env").glob("lib/*/site-packages")
        others = [sysconfig.get_path("purelib"), Path(detectron2.__file__).parents[1]]
        (packages / "others.pth").write_text("".join(f"{path}\n" for path in others))

    def run(self, *command):
        """Run a program of the environment; returns what it prints."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= {"PATH": f"{self.programs}:/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}
        environment |= {"DETECTRON2_DATASETS": str(self.folder / "data")}
        done = subprocess.run(
            list(map(str, command)), cwd=self.work, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("home"))
    home.install()
    return home


@pytest.fixture(scope="module")
def trained(home):
    """What the distilled student's training prints, after its teacher's in two processes."""
    two = ["--num-gpus", "2", "--dist-url", "auto"]
    home.run("reviewkd-train", "--config-file", "demo/teacher.yaml", *two, *SHORT)
    # A teacher of some iterations finds nothing to label.
    own = ["MODEL.DISTILL.TEACHER_LABELS.ENABLED", "False", "DATASETS.UNLABELED", "()"]
    return home.run("reviewkd-train", "--config-file", "configs/demo/student.yaml", *SHORT, *own)


def test_it_is_the_wheel_that_runs(home):
    code = "import classification, reviewkd_det as r; print(r.__version__, r.__file__)"
    version, file = home.run("python", "-c", code).split()
    assert version == reviewkd_det.__version__
    assert Path(file).is_relative_to(home.folder / "env")


def test_every_command_is_installed(home):
    assert {path.name for path in home.programs.glob("reviewkd-*")} == set(ENTRY_POINTS.values())


def test_a_packaged_recipe_is_distilled_below_the_working_directory(home, trained):
    assert "loss_reviewkd" in trained
    for name in ("teacher", "all"):
        assert (home.work / "output" / "demo" / name / "model_final.pth").is_file()


def test_the_printed_commands_can_be_pasted(home, trained):
    lines = dict(re.findall(r"^  (\w+ it:) +(reviewkd-.*)$", trained, re.MULTILINE))
    assert set(lines) == {"export it:", "evaluate it:", "compare it:"}
    for line in lines.values():
        home.run("sh", "-c", line)
    run = home.work / "output" / "demo" / "all"
    assert (run / "exported" / "model.pth").is_file()
    assert (run / "evaluation" / "results.json").is_file()
    assert "teacher" in (run / "report.html").read_text()


@pytest.mark.usefixtures("trained")
def test_a_run_of_the_demo_is_drawn(home):
    run = ["--run", "output/demo/all", "--count", 1]
    home.run("reviewkd-visualize", *run, "--output", "pictures")
    assert {path.name for path in (home.work / "pictures").iterdir()} == {
        "predictions_000001.png",
        "levels_all_000001.png",
    }


def test_a_packaged_recipe_trains_a_classifier(home):
    options = ["SOLVER.EPOCHS", "1", "SOLVER.WARMUP_EPOCHS", "0.0", "DATA.TRAIN_IMAGES", "100"]
    home.run(
        "reviewkd-classify-train", "--config-file", "digits/teacher.yaml", *options,
        "TRACKERS", "()", "OUTPUT_DIR", "output/digits",
    )  # fmt: skip
    config = home.work / "output" / "digits" / "config.yaml"
    assert "top1" in home.run("reviewkd-classify-evaluate", "--config-file", config)
