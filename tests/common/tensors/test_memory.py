import subprocess
import sys

import pytest

from reviewkd_det.common import keep_freed_memory

PAGE, FLOATS, TENSORS = 4096, 10_000_000, 5  # 40 MB, which glibc maps anew at all times
FAULTS = f"""
import resource, torch
from reviewkd_det.common import keep_freed_memory
assert keep_freed_memory()
for _ in range(20):
    torch.ones({FLOATS})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TENSORS}):
    torch.ones({FLOATS})
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_used_again_without_page_faults():
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True)
    assert int(done.stdout) < 4 * FLOATS * TENSORS / PAGE / 2


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
