"""What a report needs to be installed, and when it is imported."""

import runpy
import subprocess
import sys
from pathlib import Path

from tests.report.test_report import make_classifier

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "report.py"
HEAVY = ["detectron2", "torch", "pandas", "seaborn", "matplotlib", "numpy"]


def test_the_package_is_imported_quickly_and_alone():
    code = (
        "import sys, time, reviewkd_det.report\n"
        "assert time.process_time() < 1, time.process_time()\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_classifiers_are_compared_without_detectron2_and_torch(tmp_path, monkeypatch):
    folder = make_classifier(tmp_path / "run").folder
    loaded = [x for x in sys.modules if x.partition(".")[0] in ("detectron2", "torch")]
    ours = [x for x in sys.modules if x.startswith("reviewkd_det.report")]
    for name in {*loaded, "detectron2", "torch"}:
        monkeypatch.setitem(sys.modules, name, None)  # to import it is an error
    for name in ours:
        monkeypatch.delitem(sys.modules, name)
    page = tmp_path / "a.html"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(folder), "--output", str(page)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert '<th scope="row">run</th>' in page.read_text()
