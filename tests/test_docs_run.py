"""Commands of the README really run, on a few small images."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from tests.d2 import scenes
from tests.docs_commands import ROOT, blocks, commands, lay_out

README = ROOT / "README.md"
# What makes a training take seconds; all else is as the README says.
SMALL = [
    *("MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", "0"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.FPN.OUT_CHANNELS", "32"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "SOLVER.BASE_LR", "0.0001"),
]


@pytest.mark.slow
def test_own_data_is_distilled_evaluated_exported_and_used(tmp_path, monkeypatch, capsys):
    lay_out(tmp_path)
    json_file, _ = scenes.write_scenes(tmp_path, classes=80)
    json_file.rename(tmp_path / "annotations.json")
    (block,) = [text for _, text in blocks(README, "") if "annotations.json" in text]
    found = commands(block)
    assert len(found) == 4
    for _, script, *words in found:
        more = SMALL if script == "tools/train_net.py" and "--eval-only" not in words else []
        done = subprocess.run(
            [sys.executable, script, *words, *more],
            cwd=tmp_path,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script} {words}: {done.stderr[-2000:]}"
    assert (tmp_path / "output" / "student" / "evaluation" / "results.json").is_file()

    (use,) = [text for _, text in blocks(README, "python") if "DefaultPredictor" in text]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(use.replace("exported/r18", "exported/student"), names)
    with Image.open(tmp_path / "images" / "0.png") as image:
        pixels = scenes.np.asarray(image)[:, :, ::-1]
    assert "instances" in names["predictor"](pixels)
