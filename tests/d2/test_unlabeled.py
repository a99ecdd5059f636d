import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.data import load_image_folder, register_image_folder
from reviewkd_det.d2.data.checks import check_data
from reviewkd_det.d2.runs import from_yaml
from reviewkd_det.d2.runs.yaml_config import load_run_config
from tests.d2 import scenes, tiny


def write_images(folder):
    (folder / "more").mkdir(parents=True)
    for name, size in [("b.png", (90, 60)), ("more/a.JPG", (40, 80))]:
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    for name in ("notes.txt", "paper.pdf", "._b.png"):
        (folder / name).write_text("not an image")


def test_a_folder_is_searched_for_images(tmp_path):
    write_images(tmp_path / "images")
    records = load_image_folder(str(tmp_path / "images"))
    assert [(r["width"], r["height"]) for r in records] == [(90, 60), (40, 80)]
    assert len({r["image_id"] for r in records}) == 2
    assert all("annotations" not in r for r in records)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold an image; got '.*' without any"):
        load_image_folder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"image folder must exist; got 'nowhere'"):
        load_image_folder("nowhere")
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"readable; got 1 of 1 .*broken.png' \(not an image"):
        load_image_folder(str(tmp_path))


def test_a_name_is_taken_once(tmp_path):
    name = f"folder_{tmp_path.name}"
    register_image_folder(name, tmp_path)
    register_image_folder(name, tmp_path)
    with pytest.raises(ValueError, match=rf"must be new; got '{name}' for the folder 'other'"):
        register_image_folder(name, "other")


def config(folder, **extra):
    tree = scenes.run_tree(folder, f"scenes_{folder.name}", **extra)
    tiny.save_teacher(folder)
    write_images(folder / "pool")
    name = f"pool_{folder.name}"
    register_image_folder(name, folder / "pool")
    tree["DATASETS"]["UNLABELED"] = [name]
    from reviewkd_det.d2.data import register_coco_format

    register_coco_format(*tree["DATASETS"]["COCO_FORMAT"][0])
    return load_config(tiny.save_student(folder, **tree))


def test_images_without_labels_join_each_batch(tmp_path):
    cfg = config(tmp_path, UNLABELED_PER_BATCH=3)
    batch = next(iter(from_yaml.build_train_loader(cfg)))
    assert [x.get("unlabeled", False) for x in batch] == [False, False, True, True, True]
    assert ["instances" in x for x in batch] == [True, True, False, False, False]


def test_annotations_of_a_labelled_data_set_are_not_read(tmp_path):
    cfg = config(tmp_path, UNLABELED_PER_BATCH=2)
    cfg.DATASETS.UNLABELED = cfg.DATASETS.TRAIN
    assert DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[0]["annotations"]
    batch = next(iter(from_yaml.build_train_loader(cfg)))
    assert ["instances" in x for x in batch] == [True, True, False, False]


@pytest.mark.parametrize("masks", [False, True])
def test_masks_that_no_head_trains_on_are_not_carried_along(tmp_path, masks):
    cfg = config(tmp_path)
    cfg.MODEL.MASK_ON = masks
    cfg.DATASETS.UNLABELED = ()
    records = from_yaml.build_train_loader(cfg)._images.records
    assert all(("segmentation" in x) == masks for x in records[0]["annotations"])
    assert all({"bbox", "category_id"} <= x.keys() for x in records[0]["annotations"])
    assert "segmentation" in DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[0]["annotations"][0]


def test_a_run_with_images_without_labels_trains(tmp_path):
    trainer = from_yaml.build_trainer(config(tmp_path, UNLABELED_PER_BATCH=2))
    trainer.train()
    assert torch.isfinite(torch.tensor(trainer.storage.history("loss_reviewkd").latest()))


def test_the_baseline_gets_labelled_images_alone(tmp_path):
    cfg = config(tmp_path, UNLABELED_PER_BATCH=2)
    cfg.MODEL.DISTILL.METHODS = ()
    assert len(next(iter(from_yaml.build_train_loader(cfg)))) == 2


def test_a_coco_file_without_labels_will_do(tmp_path):
    cfg = config(tmp_path, UNLABELED_PER_BATCH=2)
    content = json.loads((tmp_path / "scenes.json").read_text())
    (tmp_path / "bare.json").write_text(json.dumps({"images": content["images"]}))
    name = f"bare_{tmp_path.name}"
    entry = [name, str(tmp_path / "bare.json"), str(tmp_path / "images")]
    opts = ["DATASETS.COCO_FORMAT", f"[{entry}]", "DATASETS.UNLABELED", f"('{name}',)"]
    load_run_config(str(tmp_path / "student.yaml"), opts)
    cfg.DATASETS.UNLABELED = (name,)
    batch = next(iter(from_yaml.build_train_loader(cfg)))
    assert ["instances" in x for x in batch] == [True, True, False, False]


@pytest.mark.parametrize(
    ("names", "methods", "words"),
    [
        ([], ("ReviewKD",), "UNLABELED_PER_BATCH must be 0 without DATASETS.UNLABELED; got 2"),
        (
            None,
            ("DKD",),
            "METHODS must have one that needs levels alone.* DATASETS.UNLABELED; got DKD",
        ),
    ],
)
def test_images_without_labels_that_would_do_nothing_are_refused(tmp_path, names, methods, words):
    cfg = config(tmp_path, UNLABELED_PER_BATCH=2)
    cfg.DATASETS.UNLABELED = cfg.DATASETS.UNLABELED if names is None else names
    cfg.MODEL.DISTILL.METHODS = methods
    with pytest.raises(ValueError, match=words):
        check_data(cfg, training=True)


def test_no_images_per_batch_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"UNLABELED_PER_BATCH must be a positive .*; got 0"):
        from_yaml.build_train_loader(config(tmp_path))
