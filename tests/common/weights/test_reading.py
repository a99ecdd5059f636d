"""Checkpoint files of others, and files that are none."""

import argparse
import os
import pickle
import re

import numpy as np
import pytest
import torch
from torch.nn import Linear

from reviewkd_det.common.weights.reading import read_checkpoint

KEY = "TEACHER.WEIGHTS"


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(
            FileNotFoundError, match=f"{KEY} must name a file .* got '{re.escape(str(path))}"
        ):
            read_checkpoint(path, KEY)


def test_what_published_files_hold_beside_weights_is_read(tmp_path):
    content = {"model": Linear(3, 2).state_dict(), "args": argparse.Namespace(lr=0.1)}
    content["best"], content["curve"] = np.float64(71.5), np.arange(3, dtype=np.float32)
    torch.save(content, tmp_path / "best.pth")
    read = read_checkpoint(tmp_path / "best.pth", KEY)
    assert torch.equal(read["model"]["weight"], content["model"]["weight"])
    assert (read["args"].lr, read["best"]) == (0.1, 71.5)
    assert read["curve"].tolist() == [0, 1, 2]


def refuse(path):
    raise RuntimeError("no such part")


def test_another_format_is_read_by_its_own_function_with_the_same_refusal(tmp_path):
    (tmp_path / "best.txt").write_text("1.5")
    assert read_checkpoint(tmp_path / "best.txt", KEY, lambda path: path.read_text()) == "1.5"
    with pytest.raises(ValueError, match=rf"{KEY} must be .* got '.*best.txt': no such part"):
        read_checkpoint(tmp_path / "best.txt", KEY, refuse)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("dump", [torch.save, lambda c, f: f.write(pickle.dumps(c["opt"], 2))])
def test_code_in_a_file_is_not_run(dump, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "best.pth"
    with path.open("wb") as file:
        dump({"model": Linear(3, 2).state_dict(), "opt": Harmful()}, file)
    # It says what is refused, not how to run it all the same.
    message = f"^{KEY} must be a checkpoint that can be read; got '.*': .*mkdir"
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(path, KEY)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.05, 0.5, 0.99])
def test_a_truncated_file_is_refused(is_zip, part, tmp_path):
    torch.save(
        Linear(3, 2).state_dict(), tmp_path / "best.pth", _use_new_zipfile_serialization=is_zip
    )
    content = (tmp_path / "best.pth").read_bytes()
    (tmp_path / "best.pth").write_bytes(content[: int(part * len(content))])
    message = rf"{KEY} must be a checkpoint that can be read; got '.*best.pth': \S"
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "best.pth", KEY)


@pytest.mark.parametrize(
    "content", ["", "hello", "a,b\n1,2\n", "<!DOCTYPE html>\n", "version https://git-lfs\n", "0."]
)
def test_a_text_file_is_refused(content, tmp_path):
    (tmp_path / "best.pth").write_text(content)
    with pytest.raises(ValueError, match=rf"{KEY} must be a checkpoint .* got '.*best.pth': \S"):
        read_checkpoint(tmp_path / "best.pth", KEY)
