"""Runs of the real script that a test interrupts, on a tiny detector."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from tests.d2 import scenes, tiny

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tools" / "train_net.py"


def prepare(folder, name, **solver):
    """A teacher, a student and data; returns the student's config."""
    tiny.save_teacher(folder)
    tree = scenes.run_tree(folder, name, **solver)
    tree["DATALOADER"]["NUM_WORKERS"] = 1
    tree["TEST"] = {"EVAL_PERIOD": 8}
    return tiny.save_student(folder, **tree)


def start(config, output, *options):
    """Start the script, in a process group of its own; what it says goes beside its folder."""
    with said(output).open("w") as file:
        return subprocess.Popen(
            [sys.executable, SCRIPT, "--config-file", config, *options, "OUTPUT_DIR", output],
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def said(output):
    """The file with what the last process in a folder said."""
    return output.with_name(f"{output.name}.txt")


def finish(process):
    """Wait for it; returns what it said."""
    process.wait(timeout=180)
    return said(Path(process.args[-1])).read_text()


def wait_for(condition, process, seconds=60):
    """Wait until a condition holds or the process has ended; returns whether it holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return True
        time.sleep(0.001)
    return condition()


def kill(process):
    """Kill it with its workers, as the machine's failure would."""
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)


def run_with_kills(config, output, kills, seed):
    """Run until done, killed at random moments; returns how many kills met a half-written file."""
    chance = random.Random(seed)
    amid_writing = 0
    for number in range(kills):
        process = start(config, output, "--resume")
        if number % 2:  # while a checkpoint is being written
            wait_for(lambda: any(output.glob("*.part")), process)
        else:
            wait_for(lambda: list(output.glob("events*")), process)
            time.sleep(chance.uniform(0.2, 2.5))
        assert process.poll() is None, finish(process)
        kill(process)
        amid_writing += any(output.glob("*.part"))
    text = finish(start(config, output, "--resume"))
    assert (output / "model_final.pth").is_file(), text
    return amid_writing


def state(output, name="model_final"):
    """A checkpoint's content, without what time has taken."""
    content = torch.load(output / f"{name}.pth", weights_only=True)
    del content["trainer"]["train_seconds"]
    return content


def differences(first, second, where=""):
    """The paths at which two nested contents differ, tensors by their bits."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second}, key=str):
            yield from differences(first.get(key), second.get(key), f"{where}/{key}")
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            yield where
        for index, pair in enumerate(zip(first, second, strict=False)):
            yield from differences(*pair, f"{where}/{index}")
    elif isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        if not torch.equal(first, second):
            yield where
    elif first != second:
        yield where
