"""What exports gained, in a report."""

import json
import sys

import pytest

from reviewkd_det.commands import report
from reviewkd_det.common.runs.record import GAINS
from reviewkd_det.report import read_run, write_page
from reviewkd_det.report.exports import read_export
from tests.report.test_report import make

ROWS = [
    {"what": "student, Detectron2", "AP": 41.5, "ms, 1 thread": 9.25},
    {"what": "student, ONNX <Runtime>", "AP": None, "ms, 1 thread": 2.5},
]


def write_export(folder, rows=ROWS):
    folder.mkdir(parents=True)
    (folder / GAINS).write_text(json.dumps(rows))
    return folder


def test_exports_inside_a_run_and_beside_it_are_shown(tmp_path, monkeypatch):
    run = make(tmp_path / "run")
    write_export(run.folder / "exported")
    other = write_export(tmp_path / "elsewhere")
    words = [run.folder, f"small={other}", "--output", tmp_path / "page.html"]
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, words)])
    report.main()
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Exports</h2>" in page
    assert "<caption>run, exported</caption>" in page
    assert "<caption>small</caption>" in page
    assert page.count("<td>9.25</td>") == 2
    assert "ONNX &lt;Runtime&gt;" in page
    assert page.count("</td><td>2.5</td>") == 2


def test_a_page_without_exports_has_no_section_of_them(tmp_path):
    run = make(tmp_path / "run")
    write_page([read_run(run.folder)], tmp_path / "page.html", tmp_path / "page.png")
    assert "Exports" not in (tmp_path / "page.html").read_text()
    assert read_export(run.folder) is None


@pytest.mark.parametrize("text", ["[", "{}", '["a"]'])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path, text):
    (tmp_path / GAINS).write_text(text)
    with pytest.raises(ValueError, match=r"gains\.json. must hold"):
        read_export(tmp_path)
