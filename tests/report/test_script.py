"""`tools/report.py` as a user runs it, and its page in a browser."""

import shutil
import subprocess

import pytest
from PIL import Image

from tests.report.test_report import config, make_pair, points, write_run
from tests.test_tools import run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    runs = [x.folder for x in make_pair(folder)]
    runs[0] = f"big one={runs[0]}"
    done = run("tools/report.py", *runs, "--output", folder / "report.html")
    assert done.returncode == 0, done.stderr
    return folder / "report.html", done


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
    page, done = report
    assert done.stdout.splitlines() == [f"Page: {page}", f"Picture: {page.with_suffix('.png')}"]
    text = page.read_text()
    assert '<th scope="row">big one</th>' in text
    assert '<th scope="row">taught</th>' in text
    assert page.with_suffix(".png").is_file()


def test_the_picture_goes_where_the_user_wants(tmp_path):
    folder = write_run(tmp_path / "a=b", config(tmp_path), points())
    arguments = ["--output", tmp_path / "x.html", "--png", tmp_path / "y.png"]
    done = run("tools/report.py", folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "y.png").is_file()
    assert '<th scope="row">a=b</th>' in (tmp_path / "x.html").read_text()


def test_a_folder_that_is_no_run_ends_in_one_sentence(tmp_path):
    done = run("tools/report.py", f"name={tmp_path}")
    assert done.returncode == 1
    assert done.stderr == (
        "report.py: error: run folder must hold config.yaml and metrics.json or metrics.jsonl; "
        f"got '{tmp_path}' without config.yaml\n"
    )


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
