"""`tools/report.py` as a user runs it, and its page in a browser."""

import io
import runpy
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from tests.report.test_report import config, make_pair, points, write_run

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "report.py"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)


def run(*arguments):
    """Run the script in this process; returns its exit code and what it wrote to the terminal."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = mock.patch.object(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    with argv, redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    runs = [x.folder for x in make_pair(folder)]
    runs[0] = f"big one={runs[0]}"
    code, out, err = run(*runs, "--output", folder / "report.html")
    assert code == 0, err
    return folder / "report.html", out


def opened(page, picture):
    """Open a page without a window; returns what its console says and takes a picture."""
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1280,4000",
    ]
    command += ["--enable-logging=stderr", "--v=0", f"--user-data-dir={picture.parent / 'profile'}"]
    command += [f"--screenshot={picture}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def test_the_script_writes_a_page_and_a_picture_beside_it(report):
    page, out = report
    assert out.splitlines() == [f"Page: {page}", f"Picture: {page.with_suffix('.png')}"]
    text = page.read_text()
    assert '<th scope="row">big one</th>' in text
    assert '<th scope="row">taught</th>' in text
    assert page.with_suffix(".png").is_file()


def test_the_picture_goes_where_the_user_wants(tmp_path):
    folder = write_run(tmp_path / "a=b", config(tmp_path), points())
    arguments = ["--output", tmp_path / "x.html", "--png", tmp_path / "y.png"]
    code, _, err = run(folder, *arguments)
    assert code == 0, err
    assert (tmp_path / "y.png").is_file()
    assert '<th scope="row">a=b</th>' in (tmp_path / "x.html").read_text()


def test_a_folder_that_is_no_run_ends_in_one_sentence(tmp_path):
    code, _, err = run(f"name={tmp_path}")
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith("report.py: error: ")
    assert f"got '{tmp_path}' without config.yaml" in line


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome")
def test_a_browser_shows_the_page_without_an_error(report, tmp_path):
    page, _ = report
    assert opened(page, tmp_path / "page.png") == []
    with Image.open(tmp_path / "page.png") as picture:
        assert len(picture.convert("RGB").getcolors(2**24)) > 100


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome")
@pytest.mark.parametrize("broken", ['<img src="no_such.png">', "<script>no_such()</script>"])
def test_a_page_that_is_broken_would_be_noticed(report, tmp_path, broken):
    page = tmp_path / "broken.html"
    page.write_text(report[0].read_text().replace("</main>", f"{broken}</main>"))
    assert opened(page, tmp_path / "page.png")
