"""Workers of a loader outlive signals to the whole job, and not their parent."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from torch.utils.data import DataLoader

from reviewkd_det.common.runs.workers import guard_workers


class Holder:
    """Holds its loader as Detectron2's grouping by aspect ratio does."""

    def __init__(self, loader):
        self.dataset = loader

    def __iter__(self):
        return iter(self.dataset)


@pytest.mark.parametrize("hold", [lambda loader: loader, Holder], ids=["loader", "held"])
def test_workers_outlive_signals_to_the_job_from_their_start(hold):
    """The kernel delivers what is sent by another process, as to all of a group."""
    loader = hold(DataLoader(range(2000), batch_size=2, num_workers=2))
    guard_workers(loader)
    batches = iter(loader)
    workers = psutil.Process().children()
    for worker in workers[-2:]:
        for name in ("TERM", "INT"):
            subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    assert len(list(batches)) == 1000
    begun = time.monotonic()
    del batches
    assert time.monotonic() - begun < 4
    assert not any(worker.is_running() for worker in workers[-2:])


def test_the_signals_reach_the_process_itself_again():
    guard_workers(loader := DataLoader(range(4), num_workers=1))
    list(loader)
    assert not {signal.SIGTERM, signal.SIGINT} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_what_has_no_workers_is_left_as_it_is():
    guard_workers([1, 2])
    guard_workers(loader := DataLoader(range(4)))
    assert [int(x) for x in loader] == [0, 1, 2, 3]


START_WORKERS = """
import psutil, time
from torch.utils.data import DataLoader
from reviewkd_det.common.runs.workers import guard_workers
loader = DataLoader(range(4000), num_workers=2)
guard_workers(loader)
batches = iter(loader)
next(batches)
print(*[child.pid for child in psutil.Process().children()], flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(60)", "raise SystemExit(3)"], ids=["killed", "exits"])
def test_workers_end_with_their_parent(then):
    command = [sys.executable, "-c", START_WORKERS.format(then=then)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        if then.startswith("time"):
            os.kill(parent.pid, signal.SIGKILL)
        assert parent.wait(20) == (-signal.SIGKILL if then.startswith("time") else 3)
        assert not psutil.wait_procs(workers, timeout=10)[1]
