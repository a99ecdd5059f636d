"""tools/label_images.py as a user runs it, in this process."""

import json
import re

import pytest

from tests.d2 import scenes, tiny
from tests.d2.labels import pool
from tests.d2.test_scripts import call


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelling")
    tiny.save_teacher(folder, INPUT={"MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 96})
    scenes.write_scenes(folder)
    pool.write_images(folder / "pool")
    return folder


def label(monkeypatch, folder, output, *more):
    arguments = ["--config-file", folder / "teacher.yaml", "--images", folder / "pool"]
    arguments += ["--output", output, "--workers", 0, *more]
    return call(monkeypatch, "label_images.py", *arguments)


def test_a_folder_is_labelled_from_a_given_or_a_found_score(folder, tmp_path, monkeypatch, capsys):
    assert label(monkeypatch, folder, tmp_path / "a.json", "--score", 0.2) == 0
    given = json.loads((tmp_path / "a.json").read_text())
    assert [x["name"] for x in given["categories"]] == ["class 0", "class 1", "class 2"]
    assert min(x["score"] for x in given["annotations"]) >= 0.2
    labelled = ["--calibration", folder / "scenes.json", folder / "images", "--keep-empty"]
    assert label(monkeypatch, folder, tmp_path / "b.json", *labelled) == 0
    assert len(json.loads((tmp_path / "b.json").read_text())["images"]) == 5
    assert "labels made" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--score", 2], "--score must be above 0 and at most 1; got 2"),
        (["--score", 0.5, "--workers", -1], "--workers must not be negative; got -1"),
        (["--score", 0.5, "MODEL.WEIGHTS", "no.pth"], "WEIGHTS must name a file .* got 'no.pth'"),
        (["--score", 0.5, "--images", "nowhere"], "image folder must exist; got 'nowhere'"),
        (["--score", 0.5, "--output", ".", "--overwrite"], "--output must be a file; got .* '.'"),
        (["--score", 1.0], "the teacher must find a label in"),
    ],
)
def test_what_cannot_be_is_one_sentence(folder, tmp_path, monkeypatch, capsys, more, words):
    assert label(monkeypatch, folder, tmp_path / "a.json", *more) == 1
    assert not (tmp_path / "a.json").exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(words, error)


def test_an_earlier_file_is_left_alone(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.json").write_text("mine")
    assert label(monkeypatch, folder, tmp_path / "a.json", "--score", 0.2) == 1
    assert "--output must not exist" in capsys.readouterr().err
    assert (tmp_path / "a.json").read_text() == "mine"
