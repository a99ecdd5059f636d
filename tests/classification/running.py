"""Small runs on scikit-learn's digits, in this process or as the command line starts them."""

import argparse
import hashlib
import json
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState

from classification.runs.folder_states import PROGRESS, SUMS
from classification.runs.start import train_main
from classification.runs.states import files_of
from classification.runs.trainer import Trainer
from reviewkd_det.common.runs.checkpoints import read_run_checkpoint

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "classification" / "configs" / "digits"
# resnet8 on 100 images: an epoch takes a fraction of a second.
SMALL = ["DATA.TRAIN_IMAGES", "100", "SOLVER.BATCH_SIZE", "25", "TRACKERS", "()", "MODEL.NAME",
         "resnet8", "SOLVER.WARMUP_EPOCHS", "0.0"]  # fmt: skip


def train(folder, *opts, config="teacher", resume=False, overwrite=False):
    """Train in this process; the last of two equal options counts. Returns the exit code."""
    args = argparse.Namespace(
        config_file=CONFIGS / f"{config}.yaml",
        resume=resume,
        overwrite=overwrite,
        opts=[*SMALL, "OUTPUT_DIR", str(folder), *map(str, opts)],
    )
    return here(train_main, args)


def here(main, *args):
    """Call a main function as in a process of one thread, on which the bits of a sum depend."""
    AcceleratorState._reset_state(True)  # else a second run takes the first one's precision
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return main(*args)
    finally:
        torch.set_num_threads(threads)


def paste(monkeypatch, line):
    """Run a command line that was printed, as a shell would split it, in this process."""
    python, script, *arguments = shlex.split(line)
    assert Path(python).name.startswith("python")
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    here(lambda: runpy.run_path(str(ROOT / script), run_name="__main__"))


def sends(monkeypatch, number, calls):
    """Let a run send itself a signal in the middle of that batch."""
    original = Trainer._train_batch

    def train_batch(self, *arguments):
        nonlocal calls
        calls -= 1
        if calls == 0:
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "_train_batch", train_batch)


def command(folder, *opts, config="teacher", resume=False):
    """The arguments of Python for what `train` does."""
    start = ["classification/train.py", *["--resume"] * resume, "--config-file"]
    return [*start, str(CONFIGS / f"{config}.yaml"), *SMALL, "OUTPUT_DIR", str(folder), *opts]


def start(*command):
    """Start a Python script of the repository in a process group of its own, with one thread."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(process, text):
    """Read the output up to a line that holds a text."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError("".join(seen))


def read_lines(folder):
    """The lines of `metrics.jsonl` but for the speed."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name != "images_per_second"}
        for line in lines
    ]


def last_state(folder):
    """The content of the last state, without what measures time."""
    content = read_run_checkpoint(files_of(folder / "state").all()[-1])
    progress = content["progress"]
    kept = {key: value for key, value in progress.items() if not key.endswith("seconds")}
    return {**content, "progress": kept}


def read_state(folder, epoch):
    """The content of the state after an epoch."""
    return read_run_checkpoint(folder / "state" / f"epoch_{epoch:05d}.pth")


def finish(process, code=0):
    """Wait for a process, and give what it printed."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


def save_as_folder(states, progress):
    """Save a state as earlier versions did, see `folder_states`; stands for `States.save`."""
    step = f"_step_{progress['step']:07d}" if progress["step"] else ""
    folder = states.files.folder / f"epoch_{progress['epoch']:05d}{step}"
    states.accelerator.save_state(str(folder), safe_serialization=True)
    text = json.dumps({**progress, "processes": states.accelerator.num_processes})
    (folder / PROGRESS).write_text(text)
    sign(folder)


def sign(folder):
    """Write the digests of a state's files."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / SUMS).write_text("".join(sums))


def assert_same_end(one, other):
    """Compare all that two runs end with, bit for bit, but for what measures time."""
    assert_same(*map(last_state, (one, other)))
    for name in ("last.pth", "best.pth"):
        assert_same(*(torch.load(folder / name) for folder in (one, other)), name)
    assert read_lines(one) == read_lines(other)


def assert_same(one, other, where=""):
    """Compare nested tensors, arrays and plain data bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for position, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}/{position}")
    elif isinstance(one, torch.Tensor | np.ndarray):
        assert one.dtype == other.dtype, where
        assert bytes(np.asarray(one)) == bytes(np.asarray(other)), where
    else:
        assert one == other, where
