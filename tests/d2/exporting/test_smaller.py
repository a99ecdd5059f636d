"""Smaller ONNX files, what was gained, and detecting with what was exported."""

import contextlib
import io
import json
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from reviewkd_det.commands import evaluate_export, predict
from reviewkd_det.commands import export as exporting
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.exporting import gains
from reviewkd_det.deploy.detections import Detections
from reviewkd_det.deploy.onnx_detector import OnnxDetector
from tests.d2 import scenes, tiny

LOW = {"ROI_HEADS": {"SCORE_THRESH_TEST": 0.0}}
MODEL = tiny.merged(tiny.R_CNN, LOW, {"MASK_ON": True})
FEW = {"TEST": {"DETECTIONS_PER_IMAGE": 20}}


def call(module, *words):
    """What a command prints, in this process."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(sys, "argv", ["command", *map(str, words)])
        module.run(module.parse_args())
    return said.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data, a teacher and a student of it, and an export of all formats."""
    path = tmp_path_factory.mktemp("smaller")
    tiny.save_teacher(path, MODEL)
    tree = tiny.merged(scenes.run_tree(path, "smaller"), FEW)
    config = tiny.save_student(path, MODEL, **tree)
    torch.manual_seed(0)
    student = build_model(load_config(config))
    with torch.no_grad():  # so that scores are no ties, which rounding would decide
        student.student.proposal_generator.rpn_head.objectness_logits.weight.mul_(100)
        student.student.roi_heads.box_predictor.cls_score.weight.mul_(10)
    torch.save({"model": student.state_dict()}, path / "student.pth")
    graphs = ["--format", "torchscript", "--format", "detectron2", "--measure"]
    (path / "said.txt").write_text(export(path, path / "out", *graphs))
    return path


def export(path, output, *more):
    return call(
        exporting, "--config-file", path / "student.yaml", "--output", output, "--format", "onnx",
        "--classes", "class 0,class 1,class 2", *more, "MODEL.WEIGHTS", path / "student.pth",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("more", "precision"), [(["--int8"], "int8"), (["--precision", "float16"], "float16")]
)
def test_a_smaller_file_says_what_it_costs(folder, tmp_path, more, precision):
    said = export(folder, tmp_path / "out", *more)
    assert "AP of the ONNX file: bbox" in said
    assert f"as {precision}" in said
    whole, smaller = (OnnxDetector(x) for x in (folder / "out", tmp_path / "out"))
    assert (whole.metadata.precision, smaller.metadata.precision) == ("float32", precision)
    sizes = [(x / "model.onnx").stat().st_size for x in (folder / "out", tmp_path / "out")]
    assert sizes[1] < sizes[0]  # of which most is the graph, so small is the network
    kinds = {x.data_type for x in onnx.load(str(tmp_path / "out" / "model.onnx")).graph.initializer}
    assert (onnx.TensorProto.INT8 if precision == "int8" else onnx.TensorProto.FLOAT16) in kinds
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    ours, theirs = (np.sort(x(image).scores)[-5:] for x in (whole, smaller))
    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_what_was_gained_is_measured(folder):
    rows = json.loads((folder / "out" / "gains.json").read_text())
    assert [row["what"] for row in rows] == [
        "teacher, Detectron2", "student, Detectron2", "student, TorchScript",
        "student, ONNX Runtime",
    ]  # fmt: skip
    student = build_model(load_config(folder / "student.yaml")).student
    count = sum(p.numel() for p in student.parameters())
    assert all(row["parameters"] == f"{count:,}" for row in rows[1:])
    assert rows[0]["multiply-adds, M"] > rows[1]["multiply-adds, M"] > 0
    assert all(row["ms, 1 thread"] > 0 and row["file, MB"] > 0 for row in rows)
    assert "| teacher, Detectron2" in (folder / "out" / "README.md").read_text()
    assert "| student, ONNX Runtime" in (folder / "said.txt").read_text()


def test_the_teachers_score_is_that_on_the_students_data(tmp_path):
    """That of its run where its data have the student's name, else measured; never another one."""
    (tmp_path / "summary.json").write_text('{"results": {"bbox": {"AP": 41.0}}}')
    assert gains._score(tmp_path, ["mine"]) is None
    for name, expected in (("mine", 41.0), ("another", None)):
        (tmp_path / "config.yaml").write_text(f"DATASETS: {{TEST: [{name}]}}\n")
        assert gains._score(tmp_path, ["mine"]) == expected
    truth, classes = (
        list(map(str, scenes.write_scenes(tmp_path))),
        ["class 0", "class 1", "class 2"],
    )

    def wrong(image):
        del image
        return Detections(np.array([[0.0, 0, 1, 1]]), np.array([0]), np.array([0.9]))

    assert gains._evaluated(wrong, classes, *truth) == 0.0
    assert gains._evaluated(wrong, ["other"], *truth) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gains, "MOST_IMAGES", 1)
        assert gains._evaluated(wrong, classes, *truth) is None


def test_each_kind_of_model_predicts_the_same(folder, tmp_path):
    found = []
    for number, model in enumerate(("out", "out/model.ts", "out/config.yaml", "student.yaml")):
        more = ["--weights", folder / "student.pth"] if model == "student.yaml" else []
        said = call(
            predict, "--model", folder / model, "--output", tmp_path / str(number), "--threshold",
            "0.0", *more, folder / "images",
        )  # fmt: skip
        assert f"in 4 images: {tmp_path}/{number}/predictions.json" in said
        found.append(json.loads((tmp_path / str(number) / "predictions.json").read_text()))
    for content in found:
        assert content["images"] == found[0]["images"]
        assert [x["name"] for x in content["categories"]] == ["class 0", "class 1", "class 2"]
        boxes, expected = (
            sorted(round(x["score"], 3) for x in each["annotations"])
            for each in (content, found[0])
        )
        np.testing.assert_allclose(boxes, expected, atol=2e-3)
        assert all("segmentation" in x for x in content["annotations"])
    pictures = sorted(x.name for x in (tmp_path / "0").glob("*.png"))
    assert pictures == [f"00000{i + 1}_{i}.png" for i in range(4)]
    with Image.open(tmp_path / "0" / pictures[0]) as picture:
        assert min(picture.size) >= 480


def test_an_onnx_file_predicts_without_torch(folder, tmp_path):
    code = f"""
        import sys
        from reviewkd_det.commands import predict
        sys.argv = ["predict", "--model", {str(folder / "out/model.onnx")!r}, "--output",
                    {str(tmp_path / "out")!r}, {str(folder / "images")!r}]
        predict.run(predict.parse_args())
        assert not {{"torch", "torchvision", "detectron2"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    assert (tmp_path / "out" / "predictions.json").is_file()


def test_the_ap_of_an_onnx_file_is_printed(folder):
    words = "--json", folder / "scenes.json", "--images", folder / "images"
    scores = json.loads(call(evaluate_export, "--model", folder / "out", *words))
    assert scores.keys() == {"bbox", "segm"}
    assert 0 <= scores["bbox"]["AP"] <= 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threshold", "2"], "--threshold must be from 0 to 1; got 2"),
        (["--batch", "0"], "--batch must be positive; got 0"),
        (["--model", "/nowhere"], "--model must exist; got '/nowhere'"),
        (["--model", "/tmp"], "--model must be the config of a run, an exported folder"),
    ],
)
def test_predicting_with_what_is_not_there_is_refused(folder, tmp_path, words, message):
    given = ["--model", folder / "out", "--output", tmp_path, *words, folder / "images"]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call(predict, *given)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_result_is_kept(folder, tmp_path):
    (tmp_path / "predictions.json").write_text("{}")
    given = ["--model", folder / "out", "--output", tmp_path, folder / "images"]
    with pytest.raises(FileExistsError, match=r"must not hold predictions; .* --overwrite"):
        call(predict, *given)
    call(predict, *given[:-1], "--overwrite", "--no-pictures", folder / "images")
    assert json.loads((tmp_path / "predictions.json").read_text())["images"]
    with pytest.raises(FileExistsError, match="--output must not hold another export"):
        export(folder, folder / "out")
    with pytest.raises(ValueError, match="--precision and --int8 must be with --format onnx"):
        call(
            exporting, "--config-file", folder / "student.yaml", "--output", tmp_path / "x",
            "--int8", "MODEL.WEIGHTS", folder / "student.pth",
        )  # fmt: skip
