"""TorchScript and ONNX of a student: what they find, what they say, and what is refused."""

import contextlib
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from PIL import Image

from reviewkd_det.commands import export as command
from reviewkd_det.d2.exporting import folder as folder_module
from reviewkd_det.d2.exporting.agreement import check_agreement
from reviewkd_det.d2.exporting.traced import check_exportable, to_onnx, traceable
from reviewkd_det.deploy.detections import Detections
from reviewkd_det.deploy.images import read_image
from reviewkd_det.deploy.metadata import METADATA
from reviewkd_det.deploy.onnx_detector import OnnxDetector
from tests.d2 import tiny, zoo

LOW = {"ROI_HEADS": {"SCORE_THRESH_TEST": 0.0}}
MODELS = {
    "boxes": tiny.merged(tiny.R_CNN, LOW),
    "masks": tiny.merged(tiny.R_CNN, LOW, {"MASK_ON": True}),
    "RetinaNet": tiny.merged(tiny.RETINANET, {"RETINANET": {"SCORE_THRESH_TEST": 0.0}}),
}
SMALL = {"INPUT": {"MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 96}, "TEST": {"DETECTIONS_PER_IMAGE": 20}}


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    """A folder with all formats, its detector's config, and images of several sizes."""
    path = tmp_path_factory.mktemp("exported")
    (path / "images").mkdir()
    generator = np.random.default_rng(0)
    for number, size in enumerate([(60, 80), (64, 64), (90, 50)]):
        pixels = np.kron(generator.integers(0, 256, (5, 5, 3)), np.ones((20, 20, 1)))
        Image.fromarray(pixels.astype(np.uint8)[: size[0], : size[1]]).save(
            path / "images" / f"{number}.png"
        )
    config = tiny.save_teacher(path, MODELS[request.param], **SMALL)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        export(path, config, path / "out")
    return path, config, said.getvalue()


def export(path, config, output, *more):
    """What `tools/export_student.py` does, in this process."""
    words = [
        "export_student.py", "--config-file", config, "--output", output, "--images",
        path / "images", "--classes", "cat,dog,bird", "--format", "onnx", "--format",
        "torchscript", "--format", "detectron2", *more, "MODEL.WEIGHTS", path / "teacher.pth",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(x) for x in words])
        command.run(command.parse_args())


def test_the_lines_of_the_readme_give_pictures_names(exported, monkeypatch):
    path, *_ = exported
    monkeypatch.chdir(path / "out")
    blocks = (path / "out" / "README.md").read_text().split("```python\n")[1:3]
    lines = [block.split("```")[0] for block in blocks]
    known = {}
    on_the_cpu = lines[0].replace("predict =", 'cfg.MODEL.DEVICE = "cpu"\npredict =')
    exec(on_the_cpu + lines[1], known)
    assert known["predict"].metadata.thing_classes == ["cat", "dog", "bird"]


def test_all_formats_find_what_detectron2_finds(exported):
    path, _, said = exported
    assert "ONNX agrees on" in said
    assert "TorchScript agrees on" in said
    cfg = get_cfg()
    cfg.merge_from_file(str(path / "out" / "config.yaml"))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = str(path / "out" / "model.pth"), "cpu"
    predict, detector = DefaultPredictor(cfg), OnnxDetector(path / "out")
    images = [read_image(file) for file in sorted((path / "images").iterdir())]
    expected = []
    for image in images:
        found = predict(image[:, :, ::-1])["instances"]  # BGR
        masks = found.pred_masks.numpy() if found.has("pred_masks") else None
        expected.append(
            Detections(
                found.pred_boxes.tensor.numpy(), found.pred_classes.numpy(), found.scores.numpy(),
                masks,
            )
        )  # fmt: skip
    assert sum(len(x.scores) for x in expected) > 10
    box, score = check_agreement(expected, [detector(image) for image in images], "ONNX")
    assert box < 1e-3
    assert score < 1e-5


def test_the_folder_can_be_moved_and_says_what_it_is(exported, tmp_path):
    path, _, _ = exported
    moved = (path / "out").rename(tmp_path / "moved")
    try:
        about = json.loads((moved / METADATA).read_text())
        assert about["classes"] == ["cat", "dog", "bird"]
        assert (about["min_size"], about["max_size"], about["channels"]) == (64, 96, "BGR")
        assert about["versions"].keys() >= {"torch", "detectron2"}
        texts = [x.read_text() for x in moved.iterdir() if x.suffix in (".yaml", ".json", ".md")]
        assert not any(str(path) in text for text in texts)
        assert OnnxDetector(moved / "model.onnx").metadata.classes == ("cat", "dog", "bird")
        readme = (moved / "README.md").read_text()
        assert all(x in readme for x in ("config.yaml", "model.onnx", "model.ts", "3 classes"))
        code = "import torch, torchvision, sys\n" + (
            f"found = torch.jit.load({str(moved / 'model.ts')!r})("
            "torch.zeros(3, 64, 80, dtype=torch.uint8))\n"
            "assert len(found) in (3, 4)\n"
            "assert 'detectron2' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    finally:
        moved.rename(path / "out")


def test_a_graph_that_differs_leaves_no_folder(exported, monkeypatch, tmp_path):
    path, config, _ = exported
    monkeypatch.setattr(
        folder_module,
        "detect_with",
        lambda run, metadata, image: Detections(np.ones((1, 4)), np.ones(1, int), np.ones(1)),
    )
    with pytest.raises(ValueError, match="ONNX must find what the detector finds, boxes within"):
        export(path, config, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_size_takes_images_of_any(exported, tmp_path):
    path, config, _ = exported
    export(path, config, tmp_path / "out", "--size", "64x96")
    detector = OnnxDetector(tmp_path / "out")
    assert detector.session.get_inputs()[0].shape == [3, 64, 96]
    for size in ((60, 80), (200, 50)):
        found = detector(np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8))
        assert (found.boxes <= np.array([size[1], size[0]] * 2)).all()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--size", "64"], "--size must be HEIGHTxWIDTH in pixels"),
        (["--classes", "cat,dog"], r"the 3 classes of the student must have names; got 2 of them"),
        (["--classes", ""], "must have names; got none, neither of the run nor of its data"),
        (["--images", "/nowhere"], "a graph must be checked on images; got none in '/nowhere'"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    exported, tmp_path, more, words
):
    path, config, _ = exported
    with pytest.raises(ValueError, match=words):
        export(path, config, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_kinds_that_a_graph_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="must be of a GeneralizedRCNN, RetinaNet or FCOS; got L"):
        check_exportable(torch.nn.Linear(1, 1))


def test_a_segmenter_is_exported_without_names_of_classes(tmp_path):
    model = {"META_ARCHITECTURE": "SemanticSegmentor", "SEM_SEG_HEAD": {"NUM_CLASSES": 4}}
    config = tiny.save_teacher(tmp_path, tiny.merged(tiny.R_CNN, model))
    words = ["--config-file", config, "--output", tmp_path / "out"]
    words += ["MODEL.WEIGHTS", tmp_path / "teacher.pth"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export_student.py", *map(str, words)])
        command.run(command.parse_args())
    files = {x.name for x in (tmp_path / "out").iterdir()}
    assert files == {"config.yaml", "metadata.json", "model.pth", "README.md"}
    assert json.loads((tmp_path / "out" / METADATA).read_text())["classes"] == []


def test_fcos_is_a_graph_too(tmp_path):
    torch.manual_seed(0)
    detector = zoo.fcos(zoo.fcos_backbone(4, 8)).eval()
    detector.test_score_thresh = 0.0
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    module = traceable(detector, image)
    to_onnx(module, image, {}, tmp_path / "a.onnx", fixed=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    other = torch.randint(0, 256, (3, 96, 64), dtype=torch.uint8)
    with torch.no_grad():
        expected = [x.numpy() for x in module(other)]
    found = session.run(["boxes", "classes", "scores"], {"image": other.numpy()})
    assert len(found[0]) > 10
    check_agreement([Detections(*expected)], [Detections(*found)], "ONNX")


def test_a_file_that_is_none_of_ours_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="ONNX file must exist"):
        OnnxDetector(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="ONNX file must be one that loads; got"):
        OnnxDetector(tmp_path)
    import onnx

    node = onnx.helper.make_node("Identity", ["image"], ["boxes"])
    kinds = [onnx.helper.make_tensor_value_info(x, 1, [1]) for x in ("image", "boxes")]
    graph = onnx.helper.make_graph([node], "g", kinds[:1], kinds[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=8),
        str(tmp_path / "model.onnx"),
    )
    with pytest.raises(ValueError, match=r"must be one of tools/export_student.py; got .* without"):
        OnnxDetector(tmp_path)
