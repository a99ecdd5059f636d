"""The scripts around the training."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(script, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / script, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_set_up_says_in_one_line_which_detectron2_is_used():
    (line,) = run("setup_detectron2.py").splitlines()
    assert line.startswith("Detectron2 0.")
    assert "snapshot" in line or "official" in line


def test_the_benchmarks_are_found_though_only_the_packages_are_installed(tmp_path):
    for name in ("classification", "reviewkd_det"):
        (tmp_path / name).symlink_to(ROOT / name)
    page = tmp_path / "page.md"
    page.write_text("no table")
    run("results_tables.py", "--page", page, PYTHONPATH=str(tmp_path))
    assert page.read_text() == "no table"
