"""Images as an exported detector sees them: as Detectron2 does."""

import numpy as np
import pytest
import torch
from detectron2.data import detection_utils
from detectron2.data.transforms import ResizeShortestEdge
from PIL import Image

from reviewkd_det.deploy.images import as_input, input_size, read_image
from reviewkd_det.deploy.inputs import find_files, read_frames
from reviewkd_det.deploy.metadata import Metadata, read_metadata

SEEN = {
    "classes": ("cat", "dog"), "channels": "BGR", "min_size": 48, "max_size": 64, "size": None,
    "mean": (103.53, 116.28, 123.675), "has_masks": False, "score_threshold": 0.05,
    "nms_threshold": 0.5, "detections_per_image": 100,
}  # fmt: skip


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_file_that_lies_on_its_side_is_turned(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(picture) as image:
        image.save(tmp_path / "turned.png", exif=exif)
    upright = read_image(picture)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(upright, -1))


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize(("least", "most"), [(48, 64), (32, 1000), (0, 0), (90, 90)])
def test_a_file_becomes_the_input_that_detectron2_makes_of_it(picture, channels, least, most):
    metadata = Metadata(**{**SEEN, "channels": channels, "min_size": least, "max_size": most})
    given, seen = as_input(read_image(picture), metadata)
    expected = detection_utils.read_image(str(picture), channels)
    if least:
        resize = ResizeShortestEdge([least, least], most)
        expected = resize.get_transform(expected).apply_image(expected)
    assert given.dtype == np.uint8
    assert seen == expected.shape[:2]
    assert np.array_equal(given, expected.transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(480, 640), (333, 500), (1, 700), (97, 31)])
def test_sizes_are_those_of_detectron2(size):
    metadata = Metadata(**{**SEEN, "min_size": 800, "max_size": 1333})
    image = np.zeros((*size, 3), np.uint8)
    transform = ResizeShortestEdge([800, 800], 1333).get_transform(image)
    assert input_size(*size, metadata) == (transform.new_h, transform.new_w)


def test_an_input_of_one_size_holds_the_image_and_the_mean():
    metadata = Metadata(**{**SEEN, "size": (32, 64)})
    image = np.full((100, 100, 3), 7, np.uint8)
    given, seen = as_input(image, metadata)
    assert given.shape == (3, 32, 64)
    assert seen == (32, 32)
    assert (given[:, :, :32] == 7).all()
    assert given[:, 0, 63].tolist() == [104, 116, 124]


def test_metadata_are_read_as_written_and_others_refused():
    metadata = Metadata(**{**SEEN, "size": (32, 64), "scores": {"val": {"bbox": {"AP": None}}}})
    assert read_metadata(metadata.dumps(), "a.onnx") == metadata
    for text in ("{}", "nothing", '{"classes": ["a"], "size": null, "mean": 3}'):
        with pytest.raises(ValueError, match=r"metadata must be those of .*; got 'a.onnx'"):
            read_metadata(text, "a.onnx")


def test_inputs_are_files_folders_and_frames(tmp_path, picture):
    folder = tmp_path / "more"
    (folder / "deep").mkdir(parents=True)
    frames = [Image.fromarray(np.full((8, 9, 3), 60 * i, np.uint8)) for i in range(3)]
    frames[0].save(folder / "deep" / "b.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "c.png")
    (folder / "notes.txt").write_text("no image")
    found = find_files([picture, folder])
    assert [name for _, name in found] == ["a.jpg", "c.png", "deep/b.gif"] or [
        name for _, name in found
    ] == ["a.jpg", "deep/b.gif", "c.png"]
    read = [frame for path, name in found for frame in read_frames(path, name)]
    assert [x.name for x in read if "b.gif" in x.name] == [f"deep/b.gif#{i}" for i in (1, 2, 3)]
    levels = [x.image.mean() for x in read if "b.gif" in x.name]
    assert levels == pytest.approx([0, 60, 120], abs=2)


def test_inputs_that_hold_no_image_are_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"no image")
    for paths, words in (
        (
            [tmp_path / "a.mp4"],
            r"got the video .*; write its frames first, as with ffmpeg -i a.mp4",
        ),
        ([tmp_path / "deploy"], "image must exist"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            find_files(paths)
    (path, name), *_ = find_files([tmp_path])
    with pytest.raises(ValueError, match=r"image must be a file that can be read; got .*b.png"):
        list(read_frames(path, name))
    (tmp_path / "b.png").unlink()
    with pytest.raises(ValueError, match="input must hold an image; got none in"):
        find_files([tmp_path])


def test_nothing_of_it_needs_torch():
    import subprocess
    import sys

    modules = ["detections", "draw", "evaluate", "images", "inputs", "metadata", "onnx_detector"]
    code = "import sys\n" + "\n".join(f"import reviewkd_det.deploy.{x}" for x in modules)
    code += "\nassert not {'torch', 'torchvision', 'detectron2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert torch is not None
