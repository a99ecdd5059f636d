"""Which checkpoint is the last, which are whole, which stay."""

import logging
import resource
from contextlib import contextmanager
from functools import partial

import pytest
import torch

from reviewkd_det.common.runs.checkpoints import Checkpoints, find_flaw, read_run_checkpoint

ENTRIES = frozenset({"weight", "iteration"})


def checkpoints(folder):
    whole = partial(find_flaw, entries=ENTRIES)
    return Checkpoints(folder, r"model_(\d+)(?:_step_(\d+))?\.pth", whole, final="model_final.pth")


def content(iteration, size=300):
    return {"weight": torch.full((size,), float(iteration)), "iteration": iteration}


def save(folder, *iterations):
    for iteration in iterations:
        checkpoints(folder).save(f"model_{iteration}.pth", content(iteration))


def names(folder):
    return [path.name for path in checkpoints(folder).all()]


def test_they_stand_in_the_order_of_their_numbers(tmp_path):
    save(tmp_path, 9, 100, 20)
    checkpoints(tmp_path).save("model_20_step_3.pth", content(21))
    assert names(tmp_path) == [
        "model_9.pth",
        "model_20.pth",
        "model_20_step_3.pth",
        "model_100.pth",
    ]


@pytest.mark.parametrize(
    ("final", "order"), [(20, [9, 20, "final", 30]), (30, [9, 20, 30, "final"])]
)
def test_the_final_one_stands_where_its_iteration_does(tmp_path, final, order):
    save(tmp_path, 9, 20, 30)
    checkpoints(tmp_path).save("model_final.pth", content(final))
    assert names(tmp_path) == [f"model_{number}.pth" for number in order]


def test_what_a_run_does_not_number_is_none_of_its_checkpoints(tmp_path):
    for name in ("model_best.pth", "last_checkpoint", "model_9.pth.part", "imagenet.pth"):
        (tmp_path / name).touch()
    assert names(tmp_path) == []
    assert checkpoints(tmp_path).last_whole() is None
    assert checkpoints(tmp_path / "nowhere").last_whole() is None


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])


def flip(path):
    """Turn a bit of a weight, which PyTorch itself would load."""
    changed = bytearray(path.read_bytes())
    weight = read_run_checkpoint(path)["weight"]
    changed[changed.index(weight.numpy().tobytes()) + 2] ^= 4
    path.write_bytes(bytes(changed))
    read_run_checkpoint(path)


def put_another_in_its_place(path):
    torch.save({"weight": torch.ones(3)}, path)


def plant_a_call(path):
    torch.save({**content(0), "harm": print}, path)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "not a zip file"),
        (empty, "not a zip file"),
        (flip, "damaged"),
        (put_another_in_its_place, "no iteration"),
        (plant_a_call, "GLOBAL print"),
    ],
)
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path, caplog, damage, reason):
    save(tmp_path, 9, 19, 29)
    damage(tmp_path / "model_29.pth")
    with caplog.at_level(logging.WARNING):
        files = checkpoints(tmp_path)
        assert files.last_whole() == tmp_path / "model_19.pth"
    (warning,) = caplog.messages
    assert all(text in warning for text in ("model_29.pth", "model_19.pth", reason))
    # It stays, as it may be a file that cannot be read just now, and takes no good one's place.
    files.save("model_20.pth", content(20))
    files.prune(2)
    assert names(tmp_path) == ["model_19.pth", "model_20.pth", "model_29.pth"]
    files.save("model_29.pth", content(29))  # the run makes it anew
    assert files.last_whole() == tmp_path / "model_29.pth"


def test_a_damaged_final_one_is_passed_over_too(tmp_path, caplog):
    save(tmp_path, 9)
    checkpoints(tmp_path).save("model_final.pth", content(9))
    cut(tmp_path / "model_final.pth")
    assert checkpoints(tmp_path).last_whole() == tmp_path / "model_9.pth"
    assert "model_final.pth" in caplog.text


def test_where_none_is_whole_each_is_named(tmp_path):
    save(tmp_path, 9, 19)
    for path in tmp_path.iterdir():
        cut(path)
    with pytest.raises(
        ValueError, match=r"must be whole; .*model_19.pth.*model_9.pth.*--overwrite"
    ):
        checkpoints(tmp_path).last_whole()


@pytest.mark.parametrize("keep", [0, 1, 2, 5])
def test_the_newest_stay_and_the_final_one_is_not_counted(tmp_path, keep):
    save(tmp_path, 9, 19, 29)
    files = checkpoints(tmp_path)
    files.save("model_final.pth", content(29))
    files.prune(keep)
    assert names(tmp_path) == [*["model_9.pth", "model_19.pth", "model_29.pth"][-keep:],
                               "model_final.pth"]  # fmt: skip


@contextmanager
def disk_of(size):
    """Let no file grow larger than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_a_sentence_and_leaves_the_last_good_one(tmp_path):
    save(tmp_path, 9)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    files = checkpoints(tmp_path)
    with (
        disk_of(2000),
        pytest.raises(OSError, match=r"model_19.pth' must be written .* MB free; .*model_9.pth'"),
    ):
        files.save("model_19.pth", content(19, size=30_000))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_killed_process_left_is_removed(tmp_path):
    save(tmp_path, 9)
    (tmp_path / "model_19.pth.part").write_bytes(b"half")
    (tmp_path / "model_20.part").mkdir()
    checkpoints(tmp_path).remove_parts()
    assert [path.name for path in tmp_path.iterdir()] == ["model_9.pth"]
