"""Runs of the real script on a tiny detector, in this process or in one that a test interrupts."""

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch

from reviewkd_det.d2.runs.trainer import Trainer
from tests.d2 import scenes, tiny
from tests.d2.test_scripts import call

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tools" / "train_net.py"


def prepare(folder, name, distill=None, workers=0, eval_period=0, **solver):
    """A teacher, a student and data; returns the student's config."""
    tiny.save_teacher(folder)
    tree = scenes.run_tree(folder, name, **solver)
    tree["DATALOADER"]["NUM_WORKERS"] = workers
    tree["TEST"] = {"EVAL_PERIOD": eval_period}
    return tiny.save_student(folder, distill=distill, **tree)


@contextmanager
def one_thread():
    """As the runs in other processes, of which the bits of a sum depend."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_here(monkeypatch, config, output, *options):
    """Run the script in this process; returns its exit code."""
    arguments = ["--config-file", config, *options, "OUTPUT_DIR", output]
    with one_thread():
        return call(monkeypatch, "train_net.py", *arguments)


def stop_here(monkeypatch, iteration, number=signal.SIGTERM):
    """Let a run of this process send itself a signal amid an iteration."""
    run_step = Trainer.run_step

    def stopping_step(self):
        if self.iter == iteration:
            os.kill(os.getpid(), number)
        run_step(self)

    monkeypatch.setattr(Trainer, "run_step", stopping_step)


def paste(monkeypatch, line):
    """Run a command line that was printed, as a shell would split it, in this process."""
    python, script, *arguments = shlex.split(line)
    assert Path(python).name.startswith("python")
    with one_thread():
        assert call(monkeypatch, Path(script).name, *arguments) == 0


def start(config, output, *options):
    """Start the script, in a process group of its own; its output goes beside its folder."""
    with log_of(output).open("w") as file:
        return subprocess.Popen(
            [sys.executable, SCRIPT, "--config-file", config, *options, "OUTPUT_DIR", output],
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def log_of(output):
    """The file with the output of the last process in a folder."""
    return output.with_name(f"{output.name}.txt")


def finish(process, code=0):
    """Wait for a process and check its exit code; returns its output."""
    process.wait(timeout=180)
    text = log_of(Path(process.args[-1])).read_text()
    assert process.returncode == code, text
    return text


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
    finish(process, -signal.SIGKILL)


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


def assert_same_end(one, other, name="model_final"):
    """Compare a checkpoint of two runs bit for bit."""
    assert list(differences(state(one, name), state(other, name))) == []
