"""The shell blocks of a page, and whether each command in them would work.

A block runs in bash with no program within reach: `python`, `make` and their like are functions
that write down their arguments, so bash itself expands variables, arrays, loops and continued
lines. Each command is then read by its script's own argument parser, in an imagined checkout, where
a training leaves the files that it would leave, so that later commands find what earlier ones make.
"""

import argparse
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

import classification.config
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.runs.lazy_config import read_lazy_config
from reviewkd_det.d2.teacher.source import read_teacher

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w*)(?: title=\"(.*?)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("accelerate", "make", "pip", "python", "torchrun")
RECORD = "".join(f'{p}() {{ printf \'%s\\0\' "$(($# + 1))" {p} "$@"; }}\n' for p in PROGRAMS)


def blocks(page, *languages):
    """The fenced blocks of a page, (title, text) each; "" is a fence without a language."""
    found = FENCE.findall(Path(page).read_text(encoding="utf-8"))
    return [(title, text) for language, title, text in found if language in languages]


def commands(block):
    """The commands that a shell block would run, as lists of words."""
    done = subprocess.run(
        ["/bin/bash", "-c", f"set -eu\n{RECORD}{block}"],
        env={"PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"bash must run it; got {done.stderr} for {block}"
    words = done.stdout.split("\0")[:-1]
    found = []
    while words:
        count = int(words.pop(0))
        found.append(words[:count])
        del words[:count]
    return found


class Parsed(BaseException):
    """A script has read its command line; no `except Exception` may keep it."""


def parsed(script, words):
    """What a script's own parser makes of a command line.

    Raises:
        SystemExit: it refuses it.
    """
    parse = argparse.ArgumentParser.parse_args

    def stop(self, *args, **kwargs):
        raise Parsed(parse(self, *args, **kwargs))

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        mock.patch.object(sys, "argv", [str(script), *words]),
    ):
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except Parsed as result:
            return result.args[0]
    raise AssertionError(f"{script} must read its command line; got none of it read")


def lay_out(folder):
    """Fill a folder with what a checkout has, by links."""
    for name in ("benchmarks", "classification", "configs", "demo", "docs", "tests", "tools"):
        if (ROOT / name).is_dir():
            (folder / name).symlink_to(ROOT / name)
    activate = folder / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()


def check(command):
    """Check a command in the working directory, an imagined checkout, and leave what it makes."""
    program, *words = command
    CHECKS[program](words)


def _python(words):
    if words[:2] == ["-m", "pytest"]:
        for path in (word.partition("::")[0] for word in words[2:] if word.startswith("tests/")):
            assert Path(path).is_file(), path
        return
    script, *rest = words
    assert Path(script).is_file(), script
    if "--help" in rest:
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        return
    args = parsed(script, rest)
    SCRIPTS.get(script, lambda args: None)(args)


def _make(words):
    dry = ["make", "--dry-run", "--directory", str(ROOT), *words]
    plan = subprocess.run(dry, capture_output=True, text=True, check=True).stdout
    if "tools/demo.py" in plan.split():
        _demo(parsed("tools/demo.py", []))


def _pip(words):
    assert words[0] == "install"
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for word in words[1:]:
        assert word in ("-e", ".") or f"\n{word}==" in pinned, word


def _accelerate(words):
    assert words[0] == "launch"
    args = launch_command_parser().parse_args(words[1:])
    _python([args.training_script, *args.training_script_args])


def _torchrun(words):
    args = get_args_parser().parse_args(words)
    _python([args.training_script, *args.training_script_args])


CHECKS = {
    "accelerate": _accelerate,
    "make": _make,
    "pip": _pip,
    "python": _python,
    "torchrun": _torchrun,
}


def _is_there(weights):
    """Whether a checkpoint is a file, or at an address that this check does not ask."""
    assert "://" in weights or Path(weights).is_file(), f"{weights} must be there"


def _leave(folder, text, *checkpoints):
    """The files of a run that later commands name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    for name in checkpoints:
        (folder / name).touch()


def _check_teacher(cfg):
    distill = cfg.MODEL.get("DISTILL", {})
    if cfg.MODEL.META_ARCHITECTURE == "DistilledDetector" and distill.METHODS:
        teacher = distill.TEACHER
        _is_there(read_teacher(teacher.CONFIG_FILE, teacher.WEIGHTS, teacher.OPTS).weights)


def _train_detector(args):
    cfg = load_config(args.config_file, args.opts)
    assert all(len(entry) == 3 for entry in cfg.DATASETS.COCO_FORMAT)
    assert all(len(entry) == 3 for entry in cfg.DATASETS.VOC_FORMAT + cfg.DATASETS.YOLO_FORMAT)
    assert all(len(entry) == 2 for entry in cfg.DATASETS.IMAGE_FOLDERS)
    if args.eval_only:
        _is_there(f"{cfg.OUTPUT_DIR}/model_final.pth" if args.resume else cfg.MODEL.WEIGHTS)
        return
    _check_teacher(cfg)
    _leave(cfg.OUTPUT_DIR, cfg.dump(), "model_final.pth", "model_best.pth")


def _train_lazy(args):
    with mock.patch("torch.cuda.is_available", return_value=True):
        read_lazy_config(args)


def _export(args):
    if args.config_file.endswith(".py"):
        assert args.formats == ["onnx"]
        return _is_there(
            f"{dict(x.split('=') for x in args.opts)['train.output_dir']}/model_final.pth"
        )
    cfg = load_config(args.config_file, args.opts)
    named = "MODEL.WEIGHTS" in args.opts
    _is_there(cfg.MODEL.WEIGHTS if named else f"{cfg.OUTPUT_DIR}/model_final.pth")
    _leave(args.output, plain_config(cfg).dump(), "model.pth")


def _show_runs(args):
    for run in args.runs:
        assert Path(run.rpartition("=")[2], "config.yaml").is_file(), run


def _demo_runs():
    """The names of the demo's runs, those that docs/results.md has numbers of."""
    records = json.loads((ROOT / "docs" / "results" / "demo.json").read_text(encoding="utf-8"))
    for record in records:
        words = shlex.split(record["command"])
        yield Path(words[words.index("OUTPUT_DIR") + 1]).name


def _demo(args):
    for name in sorted(set(_demo_runs())):
        opts = ["MODEL.DISTILL.METHODS", "()", "OUTPUT_DIR", f"{args.output}/{name}"]
        kind = "teacher" if name == "teacher" else "student"
        _train_detector(parsed("tools/train_net.py",
                               ["--config-file", f"configs/demo/{kind}.yaml", *opts]))  # fmt: skip


def _train_classifier(args):
    cfg = classification.config.load_config(args.config_file, args.opts)
    if cfg.DISTILL.METHODS and "/" not in cfg.TEACHER.NAME:  # else a library's own weights
        _is_there(cfg.TEACHER.WEIGHTS)
    _leave(cfg.OUTPUT_DIR, cfg.dump(), "last.pth", "best.pth")


def _evaluate_classifier(args):
    cfg = classification.config.load_config(args.config_file, args.opts)
    _is_there(args.weights or f"{cfg.OUTPUT_DIR}/last.pth")


SCRIPTS = {
    "tools/train_net.py": _train_detector,
    "tools/lazyconfig_train_net.py": _train_lazy,
    "tools/export_student.py": _export,
    "tools/report.py": _show_runs,
    "tools/visualize.py": _show_runs,
    "tools/demo.py": _demo,
    "classification/train.py": _train_classifier,
    "classification/evaluate.py": _evaluate_classifier,
}
