"""Where a config is found: a path first, then a recipe that is installed with the packages."""

from pathlib import Path

import pytest

from reviewkd_det.common import CLASSIFIERS, DETECTORS, find_config, recipe_folder

ROOT = Path(__file__).resolve().parents[3]
RECIPES = [(DETECTORS, "demo/student.yaml"), (CLASSIFIERS, "digits/teacher.yaml")]


@pytest.mark.parametrize(("room", "name"), [*RECIPES, (DETECTORS, "faster_rcnn_r50_r18.yaml")])
def test_a_recipe_is_found_from_any_folder_with_and_without_its_room(
    tmp_path, monkeypatch, room, name
):
    monkeypatch.chdir(tmp_path)
    assert find_config(name, room) == find_config(f"{room}/{name}", room) == ROOT / room / name


@pytest.mark.parametrize(("room", "name"), RECIPES)
def test_a_file_that_is_there_comes_before_a_recipe(tmp_path, monkeypatch, room, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir()
    Path(name).touch()
    assert find_config(name, room) == Path(name)


@pytest.mark.parametrize(
    ("room", "name", "nearest"),
    [
        (DETECTORS, "demo/studnet.yaml", "demo/student.yaml"),
        (DETECTORS, "configs/faster_rcnn_r50_r81.yaml", "faster_rcnn_r50_r18.yaml"),
        (DETECTORS, "lazy/retinanet.py", "lazy/retinanet_r101_fcos_r18.py"),
        (CLASSIFIERS, "classification/configs/digits/pupil.yaml", "digits/student.yaml"),
    ],
)
def test_a_name_that_nothing_has_is_refused_with_the_nearest(room, name, nearest):
    with pytest.raises(FileNotFoundError, match=f"must exist; got '{name}'; .*{nearest}"):
        find_config(name, room)


def test_a_recipe_of_the_other_room_is_not_meant():
    with pytest.raises(FileNotFoundError, match=r"got 'digits/teacher.yaml'"):
        find_config("digits/teacher.yaml", DETECTORS)


def test_installed_recipes_come_before_those_of_a_folder_beside(tmp_path, monkeypatch):
    package = tmp_path / "reviewkd_det"
    (package / "configs").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr("reviewkd_det.common.config.recipes.PACKAGES", package)
    assert recipe_folder(DETECTORS) == package / "configs"
    assert recipe_folder(CLASSIFIERS) == tmp_path / CLASSIFIERS
