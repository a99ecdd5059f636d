import subprocess
import sys

import pytest

from reviewkd_det.common import keep_freed_memory

FAULTS = """
import resource, sys, torch
from reviewkd_det.common import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(5):
    torch.ones(16_000_000)  # 64 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_used_again_without_page_faults():
    faults = {
        mode: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, mode], check=True, capture_output=True, text=True
            ).stdout
        )
        for mode in ("keep", "stock")
    }
    assert faults["keep"] < faults["stock"] / 2


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
