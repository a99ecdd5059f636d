"""The block at the end of a run, and the folder of a run."""

import pytest

from reviewkd_det.common.runs.result import result_block, run_folder_of


@pytest.mark.parametrize("metrics", ["metrics.json", "metrics.jsonl"])
def test_a_runs_folder_holds_its_config_and_metrics(tmp_path, metrics):
    checkpoint = str(tmp_path / "model_final.pth")
    assert run_folder_of(checkpoint) is None
    (tmp_path / metrics).touch()
    assert run_folder_of(checkpoint) is None
    (tmp_path / "config.yaml").touch()
    assert run_folder_of(checkpoint) == tmp_path
    assert run_folder_of("https://host/model.pth") is None


def test_a_block_is_aligned_and_leaves_out_what_has_no_text():
    lines = {"last:": "20.1", "evaluate it:": "python x", "best:": ""}
    assert result_block("Done", lines) == "Done\n  last:         20.1\n  evaluate it:  python x"
    assert result_block("Done", {}) == "Done"
