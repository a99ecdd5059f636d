"""Files that are no checkpoints."""

import os
import pickle
import re

import pytest
import torch
from torch.nn import Linear

from classification.weights import load_weights

KEY = "TEACHER.WEIGHTS"


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(
            FileNotFoundError, match=f"{KEY} must be .* got '{re.escape(str(path))}"
        ):
            load_weights(Linear(3, 2), path, KEY)


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
    message = f"^{KEY} must be a checkpoint of weights and plain data; got '.*': .*mkdir"
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(Linear(3, 2), path, KEY)
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
    message = rf"{KEY} must be a checkpoint of weights and plain data; got '.*best.pth': \S"
    with pytest.raises(ValueError, match=message):
        load_weights(Linear(3, 2), tmp_path / "best.pth", KEY)


@pytest.mark.parametrize(
    "content", ["", "hello", "a,b\n1,2\n", "<!DOCTYPE html>\n", "version https://git-lfs\n", "0."]
)
def test_a_text_file_is_refused(content, tmp_path):
    (tmp_path / "best.pth").write_text(content)
    with pytest.raises(ValueError, match=rf"{KEY} must be a checkpoint .* got '.*best.pth': \S"):
        load_weights(Linear(3, 2), tmp_path / "best.pth", KEY)
