"""Images without labels: which they are, what a batch of them teaches, and runs with them."""

import argparse
import json
import logging
import os
import re
import signal
from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms.v2.functional import to_pil_image

from classification.config import load_config
from classification.config_checks import CUSTOMER
from classification.data import DataSettings, DeviceLoader, WorkerLoader, build_loaders, load_source
from classification.data.unlabeled import find_images
from classification.partly_labeled import fill_target, partial_cross_entropy
from classification.runs.start import evaluate_main
from reviewkd_det.core import Need, find_method
from tests.classification.distilling import IMAGES, build, config
from tests.classification.running import ROOT, assert_same_end, here, read_lines, sends, train
from tests.every_method import each_method

DIGITS = DataSettings("digits", "", 8, 100, "none", 0, "auto", 0)


def loaders(batch_size=20, **changes):
    return build_loaders(replace(DIGITS, **changes), batch_size=batch_size, eval_batch_size=500)


def whole(loader):
    """All images of an epoch in the order of their pixels, with their labels."""
    images, labels = map(torch.cat, zip(*loader, strict=True))
    order = sorted(range(len(images)), key=lambda i: bytes(images[i].numpy()))
    return images[order], labels[order]


def write(path, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (colour, 0, 0)).save(path)


# What a batch teaches.

LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.double)
TARGET = torch.tensor([4, -1, 0, -1, -1, 2])


def test_the_cross_entropy_of_parts_is_that_of_the_batch_and_of_its_labels():
    share = 0.25
    parts = [
        partial_cross_entropy(x, y, share)
        for x, y in zip(LOGITS.split(2), TARGET.split(2), strict=True)
    ]
    losses = [-LOGITS[i].log_softmax(0)[TARGET[i]] for i in (0, 2, 5)]
    expected = sum(losses) / (0.25 * 6)
    torch.testing.assert_close(torch.stack(parts).mean(), expected)
    torch.testing.assert_close(partial_cross_entropy(LOGITS, TARGET, share), expected)
    known = TARGET.clamp(min=0)
    assert partial_cross_entropy(LOGITS, known, None).equal(F.cross_entropy(LOGITS, known))


def test_images_without_labels_have_no_cross_entropy():
    logits = LOGITS.clone().requires_grad_()
    partial_cross_entropy(logits, TARGET, 0.5).backward()
    assert logits.grad.any(dim=1).tolist() == (TARGET >= 0).tolist()
    nothing = partial_cross_entropy(logits, torch.full((6,), -1), 0.5)
    assert nothing.item() == 0
    nothing.backward()  # of a batch without any label


def test_the_teachers_class_stands_where_there_is_no_label():
    assert fill_target(TARGET, LOGITS).tolist() == [
        t if t >= 0 else row.index(max(row))
        for t, row in zip(TARGET.tolist(), LOGITS.tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    ("share", "batch_size", "expected"), [(0.3, 20, 0.3), (0.001, 20, 0.05), (0.3, 1, 1.0)]
)
def test_no_label_counts_more_than_a_batch_of_its_own(folder, share, batch_size, expected):
    cfg = config(folder, "SOLVER.BATCH_SIZE", batch_size, methods=("KD",))
    model = build(cfg, labeled_share=share)[0].train()
    losses = model(IMAGES, torch.tensor([-1, 3, -1]), 1)
    own = F.cross_entropy(model.classify(IMAGES)[1:2], torch.tensor([3]))
    torch.testing.assert_close(losses["loss_ce"], own / (3 * expected))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("teacher")


@each_method(CUSTOMER.gives)
def test_every_method_learns_from_images_without_labels(folder, name):
    options = (f"DISTILL.{name.upper()}.STAGE_SHARE", 0.0) if Need.STAGE in needs(name) else ()
    cfg, samples = config(folder, *options, methods=(name,)), torch.tensor([-1, 3, -1, 0, 1])
    model = build(cfg, labeled_share=1 / 3, samples=samples)[0].train()
    plain = build(cfg, samples=samples)[0].train()
    with torch.no_grad():
        seen = model.classify_as_teacher(IMAGES).argmax(1)
    target = torch.tensor([-1, 3, -1])
    sample, key = torch.tensor([2, 1, 0]), f"loss_{name.lower()}"
    torch.manual_seed(0)
    losses = model(IMAGES, target, 1, sample)
    torch.manual_seed(0)
    expected = plain(IMAGES, torch.stack([seen[0], target[1], seen[2]]), 1, sample)
    assert losses[key] > 0
    torch.testing.assert_close(losses[key], expected[key])
    sum(losses.values()).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(grad.isfinite().all() for grad in grads)


def needs(name):
    return find_method(name).needs


# Which images they are.


@pytest.mark.parametrize("loader", ["device", "workers"])
def test_the_rest_is_what_the_labels_leave_out(loader):
    everything = whole(loaders(train_images=0, batch_size=1297, loader=loader).train)
    data = loaders(unlabeled=("rest",), batch_size=1297, loader=loader)
    images, labels = whole(data.train)
    assert images.equal(everything[0])
    assert (labels >= 0).sum() == data.labeled_images == 100
    assert labels[labels >= 0].bincount().tolist() == [10] * 10
    assert labels[labels >= 0].equal(everything[1][labels >= 0])
    assert labels[labels < 0].unique().tolist() == [-1]
    assert data.unlabeled_images == 1197
    assert data.labeled_share == pytest.approx(100 / 1297)
    assert len(loaders(unlabeled=("rest",), loader=loader).train) == 64  # steps of 20 images
    assert "100 labelled and 1197 unlabelled training (1297 an epoch) and" in data.description


def test_a_seed_of_its_own_chooses_the_labelled_images():
    splits = [load_source("digits", "", train_images=100, subset_seed=s).train for s in (0, 0, 1)]
    assert splits[0].images.equal(splits[1].images)
    assert not splits[0].images.equal(splits[2].images)
    assert splits[2].labels.bincount().tolist() == [10] * 10


def test_a_folder_of_any_layout_and_lists_are_searched(tmp_path):
    for name in ("b.png", "A/x.JPG", "A/deep/er/y.jpeg", ".hidden/h.png", ".h.png"):
        write(tmp_path / "more" / name)
    (tmp_path / "more" / "notes.txt").write_text("no image")
    (tmp_path / "more" / "A" / "circle").symlink_to(tmp_path / "more")

    def found(path):
        return [os.path.relpath(x, tmp_path / "more") for x in find_images(str(path))]

    assert found(tmp_path / "more") == ["A/deep/er/y.jpeg", "A/x.JPG", "b.png"]
    assert found(tmp_path / "more" / "b.png") == ["b.png"]
    listed = tmp_path / "list.txt"
    listed.write_text(f"more/b.png\r\n\n{tmp_path}/more/A/deep\n", encoding="utf-8-sig")
    assert found(listed) == ["b.png", "A/deep/er/y.jpeg"]


@pytest.mark.parametrize("loader", ["device", "workers"])
def test_files_join_images_in_memory(tmp_path, loader):
    digits = load_source("digits", "").test.images[:3]
    for number, image in enumerate(digits):
        to_pil_image(image).save(tmp_path / f"{number}.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "0.png")
    # An image that is named three times is there once.
    more = (str(tmp_path), "rest", str(tmp_path / "0.png"))
    data = loaders(unlabeled=more, loader=loader, batch_size=1300)
    images, labels = whole(data.train)
    assert len(images) == 1300
    found = [i for i, image in enumerate(images) if any(image.equal(x) for x in digits)]
    assert labels[found].tolist() == [-1] * 3
    assert data.train.describe_batch(0, 1) == "" or ", whose images are '" in (
        data.train.describe_batch(0, 1)
    )


def test_auto_reads_files_without_labels_with_workers(tmp_path):
    write(tmp_path / "a.png")
    assert type(loaders(unlabeled=("rest",)).train) is DeviceLoader
    assert type(loaders(unlabeled=(str(tmp_path),)).train) is WorkerLoader


@pytest.fixture
def classes(tmp_path):
    """An image folder of 4 training and 2 test images."""
    for number, name in enumerate(("train/a/0", "train/a/1", "train/b/2", "train/b/3")):
        write(tmp_path / "data" / f"{name}.png", 40 * number)
    for number, name in enumerate(("val/a/0", "val/b/1")):
        write(tmp_path / "data" / f"{name}.png", 200 + number)
    return tmp_path / "data"


def in_folder(root, unlabeled, train_images=2, loader="device"):
    return loaders(
        name="image_folder", root=str(root), unlabeled=unlabeled, train_images=train_images,
        loader=loader, batch_size=2,
    )  # fmt: skip


def test_a_folder_of_classes_has_a_rest_too(classes):
    data = in_folder(classes, ("rest",))
    labels = torch.cat([labels for _, labels in data.train])
    assert sorted(labels.tolist()) == [-1, -1, 0, 1]


def test_labelled_and_test_images_without_labels_are_warned_of(classes, caplog):
    (classes.parent / "link").symlink_to(classes)
    with caplog.at_level(logging.WARNING):
        data = in_folder(classes, (str(classes.parent / "link"),))
    assert data.unlabeled_images == 6
    first, second = caplog.messages
    assert first.startswith("2 of the 6 images of DATA.UNLABELED are labelled training images")
    assert second.startswith("2 of the 6 images of DATA.UNLABELED are test images")
    caplog.clear()
    in_folder(classes, ("rest",))
    assert not [x for x in caplog.records if x.levelname == "WARNING"]


def test_an_image_of_the_rest_is_there_once_and_warned_of_as_others_are(classes, caplog):
    os.link(classes / "val" / "b" / "1.png", classes / "train" / "b" / "1.png")
    os.link(classes / "train" / "b" / "2.png", classes.parent / "copy.png")
    more = ("rest", str(classes / "train"), str(classes.parent / "copy.png"))
    with caplog.at_level(logging.WARNING):
        data = in_folder(classes, more, train_images=2)
        in_folder(classes, ("rest",), train_images=2)
    assert (data.labeled_images, data.unlabeled_images) == (2, 5)
    first, second, third = caplog.messages
    assert first.startswith("2 of the 5 images of DATA.UNLABELED are labelled training images")
    assert second.startswith("1 of the 5 images of DATA.UNLABELED are test images")
    assert third.startswith("1 of the 3 images of DATA.UNLABELED are test images")


@pytest.mark.parametrize("loader", ["device", "workers"])
def test_an_image_that_cannot_be_read_is_named(classes, loader):
    write(classes.parent / "more" / "good.png")
    (classes.parent / "more" / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"must be readable; got 1 of .*more/bad.png'"):
        list(in_folder(classes, (str(classes.parent / "more"),), loader=loader).train)


@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        ("none", FileNotFoundError, "DATA.UNLABELED must name folders, .* that exist, .*none'"),
        ("empty", ValueError, "DATA.UNLABELED must lead to images, .jpg .*; got none in '.*empty'"),
        ("empty.txt", ValueError, "must lead to images, .*; got none in '.*empty.txt'"),
        ("hollow.txt", ValueError, "must lead to images, .*; got none in '.*empty/deep'"),
        ("lost.txt", FileNotFoundError, "must list images that exist; got 'x.png' in '.*lost.txt'"),
        ("data.zip", ValueError, "must name folders, .* or text files with .*data.zip', which is"),
    ],
)
def test_what_leads_to_no_image_is_refused(tmp_path, path, error, sentence):
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "empty" / "notes.txt").write_text("x")
    (tmp_path / "empty.txt").write_text("\n\n")
    write(tmp_path / "some.png")
    (tmp_path / "hollow.txt").write_text("some.png\nempty/deep\n")
    (tmp_path / "lost.txt").write_text("x.png\n")
    (tmp_path / "data.zip").write_bytes(bytes(range(256)))
    with pytest.raises(error, match=sentence):
        loaders(unlabeled=(str(tmp_path / path),))


def test_a_rest_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"DATA.TRAIN_IMAGES must leave .* got all 1297 of them"):
        loaders(unlabeled=("rest",), train_images=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["DATA.UNLABELED", "folder"],
            "DISTILL.METHODS must name how to learn from a teacher on the images of DATA.UNLABELED "
            "'folder'; got (); to train on labels alone set DATA.UNLABELED \"()\"",
        ),
        (
            ["DATA.UNLABELED", "3"],
            "DATA.UNLABELED must be a path, 'rest' or a list of these; got 3",
        ),
        (["DATA.SUBSET_SEED", "-1"], "DATA.SUBSET_SEED must not be negative; got -1"),
    ],
)
def test_bad_values_are_refused(tmp_path, options, message):
    (tmp_path / "run.yaml").write_text("{}")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_config(tmp_path / "run.yaml", options)


# Runs with them.


@pytest.fixture(autouse=True)
def _clean_log():
    yield
    logging.getLogger("classification").handlers.clear()


SHORT = ["SOLVER.EPOCHS", 2, "DATA.TRAIN_IMAGES", 10, "SOLVER.BATCH_SIZE", 10, "TEACHER.NAME",
         "resnet8", "DISTILL.METHODS", "('ReviewKD', 'KD', 'DKD')",
         "SOLVER.ACCUMULATION_STEPS", 2, "TEST.PERIOD", 2]  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A distilled run, on 10 labelled digits and a folder of 40 images without labels."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "teacher", "SOLVER.EPOCHS", 1)
    for number in range(40):
        write(folder / "more" / f"{number}.png", 5 * number)
    opts = [*SHORT, "TEACHER.WEIGHTS", folder / "teacher" / "last.pth"]
    opts += ["DATA.UNLABELED", folder / "more", "DATA.LOADER", "device"]
    train(folder / "whole", *opts, config="student")
    return folder, opts


def test_a_run_counts_labels_apart_and_its_student_is_tested_without_the_folder(
    whole_run, tmp_path
):
    folder, _ = whole_run
    summary = json.loads((folder / "whole" / "summary.json").read_text())
    assert (summary["train_images"], summary["unlabeled_images"]) == (10, 40)
    for line in read_lines(folder / "whole"):
        assert {"loss_ce", "loss_reviewkd", "loss_kd", "loss_dkd"} < set(line)
    ratios = re.findall(r"loss_kd is (\S+) times", (folder / "whole" / "log.txt").read_text())
    assert len(ratios) == 1
    assert float(ratios[0]) < 1e6
    opts = ["DATA.UNLABELED", "moved_away", "SOLVER.BATCH_SIZE", "50"]
    args = argparse.Namespace(
        config_file=folder / "whole" / "config.yaml", weights="", opts=opts,
        json=str(tmp_path / "accuracy.json"),
    )  # fmt: skip
    here(evaluate_main, args)
    assert json.loads((tmp_path / "accuracy.json").read_text())["top1"] == summary["top1"]


def test_a_run_that_is_stopped_goes_on_exactly(whole_run, tmp_path, monkeypatch):
    folder, opts = whole_run
    with monkeypatch.context() as context:
        sends(context, signal.SIGTERM, 3)
        assert train(tmp_path, *opts, config="student") == 128 + signal.SIGTERM
    train(tmp_path, *opts, config="student", resume=True)
    assert_same_end(folder / "whole", tmp_path)


# The queues that compare them.


@pytest.mark.parametrize("name", ["classification_unlabeled", "cifar10_unlabeled"])
def test_a_queue_compares_equal_steps_on_equal_labels(name):
    queue = yaml.safe_load((ROOT / "benchmarks" / "queues" / f"{name}.yaml").read_text())
    cfgs = {}
    for run in queue["runs"]:
        options = {**queue["options"], "DATA.SUBSET_SEED": 0, **run["options"]}
        words = [str(word) for pair in options.items() for word in pair]
        cfgs[run["row"]] = load_config(ROOT / queue["config"], words)
    images = {"classification_unlabeled": 1297, "cifar10_unlabeled": 25000}[name]
    for row, cfg in cfgs.items():
        is_labels_only = row in ("teacher", "plain") or row.endswith("labels only")
        assert (cfg.DATA.UNLABELED is None) == (is_labels_only or "true labels" in row)
        assert (cfg.TEACHER.NAME if row == "teacher" else cfgs["KD"].MODEL.NAME) == cfg.MODEL.NAME
        if row != "teacher":
            length = cfg.DATA.TRAIN_IMAGES if is_labels_only else images
            steps = cfg.SOLVER.EPOCHS * (length // cfg.SOLVER.BATCH_SIZE)
            assert steps == {"classification_unlabeled": 640, "cifar10_unlabeled": 2340}[name]
    assert {"teacher", "plain", "KD", "ReviewKD", "all"} <= set(cfgs)
