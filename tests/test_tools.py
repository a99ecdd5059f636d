"""The scripts around the training."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_set_up_says_in_one_line_which_detectron2_is_used():
    done = subprocess.run(
        [sys.executable, "tools/setup_detectron2.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("Detectron2 0.")
    assert "snapshot" in line or "official" in line
