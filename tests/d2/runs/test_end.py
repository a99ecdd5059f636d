"""The block a run ends with; its command lines are pasted into a shell."""

import json
import re

import pytest
import torch

from tests.d2.runs import running


def block(folder):
    """The title and the lines of the last block in a run's log, by their labels."""
    text = (folder / "log.txt").read_text().rpartition("Done: ")[2]
    title, *lines = text.splitlines()
    found = [re.match(r"  ([a-z ]+:) +(.+)", line) for line in lines]
    return title, dict(match.groups() for match in found if match)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was evaluated twice, whose teacher's folder is that of a run."""
    folder = tmp_path_factory.mktemp("with a space")
    config = running.prepare(
        folder, "ended", distill={"TEACHER": {"WEIGHTS": str(folder / "teacher.pth")}},
        MAX_ITER=4, eval_period=2,
    )  # fmt: skip
    for name in ("config.yaml", "metrics.json"):
        (folder / name).touch()
    evaluate = "reviewkd_det.d2.runs.evaluation.inference_on_dataset"
    scores = iter([30.0, 20.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, lambda *_: {"bbox": {"AP": next(scores), "AP50": 99.0}})
        assert running.run_here(patch, config, folder / "run") == 0
    return folder / "run"


def test_the_last_and_the_best_evaluation_are_named_with_their_checkpoints(run):
    title, lines = block(run)
    assert title == "4 iterations"
    assert list(lines) == ["last:", "best:", "export it:", "evaluate it:", "compare it:"]
    assert lines["best:"] == f"bbox/AP 30.00 after 2 iterations; {run / 'model_best.pth'}"
    assert lines["last:"] == f"bbox/AP 20.00; {run / 'model_final.pth'}"
    assert torch.load(run / "model_best.pth", weights_only=True)["iteration"] == 1
    assert json.loads((run / "summary.json").read_text())["results"]["bbox"]["AP"] == 20


def test_the_export_and_the_evaluation_can_be_pasted(run, monkeypatch):
    _, lines = block(run)
    running.paste(monkeypatch, lines["export it:"])
    exported = torch.load(run / "exported" / "model.pth", weights_only=True)["model"]
    final = torch.load(run / "model_final.pth", weights_only=True)["model"]
    assert exported.keys() == final.keys()
    assert all(torch.equal(exported[name], final[name]) for name in final)
    running.paste(monkeypatch, lines["evaluate it:"])
    assert "AP" in json.loads((run / "evaluation" / "results.json").read_text())["bbox"]


def test_the_comparison_names_the_teachers_run_too(run):
    _, lines = block(run)
    assert lines["compare it:"].endswith(f"'{run}' 'teacher={run.parent}'")
