import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from reviewkd_det.demo import digit_scenes
from reviewkd_det.demo.digit_drawing import (
    DIGIT_HEIGHT_PX,
    DIGITS_PER_SCENE,
    SCENE_SIDE_PX,
    bounds,
    draw_glyph,
    draw_scene,
    outline,
)
from reviewkd_det.demo.digit_scenes import register_digit_scenes, write_digit_scenes

FEW = {"train": 4, "val": 3, "dev": 2, "unlabeled": 5}


def rasterise(polygons, height, width):
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons, height, width))) > 0


def contents(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digit_scenes"
    write_digit_scenes(str(folder), FEW)
    return folder


@pytest.fixture(scope="module")
def sources():
    return digit_scenes._divide_digits(0)


def read(folder, name):
    return json.loads((folder / "annotations" / f"{name}.json").read_text())


def test_bounds_are_the_tight_box():
    mask = np.zeros((7, 9), bool)
    mask[2, 3] = mask[5, 4] = True
    assert bounds(mask) == (3, 2, 2, 4)


def test_outline_gives_back_a_mask_with_holes_and_islands():
    mask = np.zeros((50, 40), bool)
    mask[5:40, 6:30] = True
    mask[10:18, 10:20] = mask[24:33, 12:22] = False  # as in an 8
    mask[44:47, 2:5] = True
    mask[0, 39] = True
    assert np.array_equal(rasterise(outline(mask), 50, 40), mask)


def test_outline_gives_back_drawn_digits(sources):
    for seed in range(5):
        _, digits = draw_scene(np.random.default_rng(seed), *sources["train"])
        for digit in digits:
            mask = rasterise(outline(digit.mask), SCENE_SIDE_PX, SCENE_SIDE_PX)
            assert np.array_equal(mask, digit.mask)


def test_glyphs_have_the_declared_height(sources):
    rng = np.random.default_rng(0)
    heights = [draw_glyph(rng, digit).shape[0] for digit in sources["val"][0][:60]]
    assert DIGIT_HEIGHT_PX[0] <= min(heights) < 20
    assert 38 < max(heights) <= DIGIT_HEIGHT_PX[1]


def test_scenes_have_the_declared_number_of_digits_with_disjoint_masks(sources):
    for seed in range(20):
        picture, digits = draw_scene(np.random.default_rng(seed), *sources["dev"])
        assert picture.shape == (SCENE_SIDE_PX, SCENE_SIDE_PX, 3)
        assert picture.dtype == np.uint8
        assert DIGITS_PER_SCENE[0] <= len(digits) <= DIGITS_PER_SCENE[1]
        assert sum(digit.mask.astype(int) for digit in digits).max() == 1


def test_no_source_digit_is_in_two_splits_but_the_unlabelled_scenes_show_those_of_train(sources):
    assert sources["unlabeled"] is sources["train"]
    sources = {split: sources[split] for split in digit_scenes.SOURCE_COUNTS}
    counts = {split: len(labels) for split, (_, labels) in sources.items()}
    assert counts == digit_scenes.SOURCE_COUNTS
    everything = np.concatenate([digits.reshape(-1, 64) for digits, _ in sources.values()])
    assert len(np.unique(everything, axis=0)) == len(everything) == 1797
    assert all(set(labels) == set(range(10)) for _, labels in sources.values())


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    write_digit_scenes(str(tmp_path / "again"), FEW)
    write_digit_scenes(str(tmp_path / "other"), FEW, seed=1)
    assert contents(tmp_path / "again") == contents(folder)
    assert contents(tmp_path / "other") != contents(folder)


def test_more_scenes_begin_with_the_same_ones(folder, tmp_path):
    write_digit_scenes(str(tmp_path / "more"), {**FEW, "train": 6})
    assert contents(folder / "images").items() <= contents(tmp_path / "more" / "images").items()


def test_annotations_bound_and_cover_what_they_describe(folder):
    for split, count in FEW.items():
        content = read(folder, split)
        assert [image["id"] for image in content["images"]] == list(range(1, count + 1))
        for annotation in content["annotations"]:
            mask = rasterise(annotation["segmentation"], SCENE_SIDE_PX, SCENE_SIDE_PX)
            assert annotation["bbox"] == list(bounds(mask))
            assert annotation["area"] == mask.sum()


def test_images_are_lossless(folder):
    picture, _ = draw_scene(
        np.random.default_rng([0, 1, 2]), *digit_scenes._divide_digits(0)["val"]
    )
    with Image.open(folder / "images" / "val" / "000002.png") as image:
        assert np.array_equal(np.asarray(image), picture)


def test_the_small_training_set_is_the_beginning_of_the_large_one(tmp_path, monkeypatch):
    monkeypatch.setattr(digit_scenes, "FIRST_SCENES", 2)
    write_digit_scenes(str(tmp_path / "few"), FEW)
    large, small = read(tmp_path / "few", "train"), read(tmp_path / "few", "train_2")
    assert small["images"] == large["images"][:2]
    expected = [entry for entry in large["annotations"] if entry["image_id"] <= 2]
    assert small["annotations"] == expected
    rest = read(tmp_path / "few", "train_rest")
    assert small["images"] + rest["images"] == large["images"]
    assert small["annotations"] + rest["annotations"] == large["annotations"]


def test_nothing_but_the_finished_folder_is_left(folder):
    assert os.listdir(folder.parent) == ["digit_scenes"]


def test_the_first_of_two_writers_wins(folder):
    before = contents(folder)
    write_digit_scenes(str(folder), FEW, seed=1)
    assert contents(folder) == before
    assert os.listdir(folder.parent) == ["digit_scenes"]


def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(digit_scenes, "_write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_digit_scenes(str(tmp_path / "digit_scenes"), FEW)
    assert contents(tmp_path) == {}


def test_a_folder_without_the_unlabelled_split_gets_it_and_keeps_the_others(folder, tmp_path):
    before = {split: count for split, count in FEW.items() if split != "unlabeled"}
    write_digit_scenes(str(tmp_path / "old"), before, seed=1)
    old = contents(tmp_path / "old")
    left = tmp_path / "old" / "images" / "unlabeled"  # by a writer that was stopped
    shutil.copytree(folder / "images" / "unlabeled", left)
    write_digit_scenes(str(tmp_path / "old"), FEW)
    new = contents(tmp_path / "old")
    assert old.items() <= new.items()
    added = {name for name in contents(folder) if "unlabeled" in name}
    assert new.keys() - old.keys() == added
    assert {name: new[name] for name in added} == {name: contents(folder)[name] for name in added}


def test_unlabelled_scenes_are_new_ones(folder):
    pictures = contents(folder / "images")
    labeled = {data for name, data in pictures.items() if not name.startswith("unlabeled")}
    assert len(pictures) == sum(FEW.values())
    assert not labeled & {data for name, data in pictures.items() if name.startswith("unlabeled")}


def test_loading_a_name_makes_the_data_once(tmp_path, monkeypatch, caplog):
    root = Path(MetadataCatalog.get("digit_scenes_val").image_root).parents[2]
    monkeypatch.setattr(
        digit_scenes,
        "write_digit_scenes",
        lambda folder, counts, write=write_digit_scenes: write(folder, {x: FEW[x] for x in counts}),
    )
    register_digit_scenes(str(tmp_path))
    try:
        with caplog.at_level("INFO"):
            names = [name for name in digit_scenes.DATASETS if not name.endswith("_rest")]
            sizes = [len(DatasetCatalog.get(name)) for name in names]
        metadata = MetadataCatalog.get("digit_scenes_val")
    finally:
        register_digit_scenes(str(root))
    assert sizes == [4, 4, 3, 2, 5]
    assert re.findall(r"made (\d+) digit scenes", caplog.text) == ["4", "3", "2", "5"]
    assert metadata.thing_classes == list("0123456789")
    assert metadata.json_file == str(tmp_path / "digit_scenes" / "annotations" / "val.json")


def test_missing_scikit_learn_is_named_with_the_fix(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r'no scikit-learn; pip install "reviewkd_det\['):
        write_digit_scenes(str(tmp_path / "digit_scenes"), FEW)
