"""Signals are noted between two steps, and a second one is obeyed at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from reviewkd_det.common import catch_interruption, end_with_parent


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)  # fmt: skip
def test_a_signal_is_noted_and_its_echo_ignored(number, code):
    before = signal.getsignal(number)
    with catch_interruption() as interruption:
        assert interruption.signal is None
        assert interruption.exit_code == 0
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.signal == number
        assert interruption.exit_code == code
    assert signal.getsignal(number) is before


def test_a_second_request_ends_the_process_at_once():
    code = (
        "import time; from reviewkd_det.common.runs import interruption\n"
        "from reviewkd_det.common import catch_interruption\n"
        "interruption.ECHO_SECONDS = 0.1\n"
        "with catch_interruption():\n"
        "    print('ready', flush=True); time.sleep(60); print('awake', flush=True)\n"
        "    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM
    process.stdout.close()


def waiting():
    end_with_parent()
    print("waiting", flush=True)
    time.sleep(100)


def test_a_process_ends_when_its_parent_is_killed():
    code = (
        "import multiprocessing, tests.common.runs.test_interruption as module\n"
        "context = multiprocessing.get_context('spawn')\n"
        "child = context.Process(target=module.waiting)\n"
        "child.start()\n"
        "child.join()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "waiting\n"
        parent.kill()
        # The child holds the other end too: this ends when both have.
        assert parent.communicate(timeout=30) == ("", None)
