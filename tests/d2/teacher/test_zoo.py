"""A teacher by its name in Detectron2's model zoo, whose configs name no trained detector."""

from pathlib import Path

import detectron2
import pytest

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.compat import zoo_checkpoint
from reviewkd_det.d2.teacher import zoo
from reviewkd_det.d2.teacher.source import read_teacher
from tests.d2 import tiny

OFFICIAL = Path(detectron2.__file__).parent / "model_zoo" / "configs"
NAME = "COCO-Detection/retinanet_R_50_FPN_3x.yaml"
UNTRAINED = "COCO-Detection/own_R_50_FPN_3x.yaml"
TRAINED = "COCO-Detection/retinanet_R_50_FPN_3x/190397829/model_final_5bd44e.pkl"
START = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
SIZES = "[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512 ]]"


@pytest.fixture
def generated(tmp_path, monkeypatch):
    """A zoo of two configs, written as the official ones are."""
    folder = tmp_path / "zoo"
    (folder / "COCO-Detection").mkdir(parents=True)
    generator = f'{{SIZES: !!python/object/apply:eval ["{SIZES}"]}}'
    (folder / "Base.yaml").write_text(
        f"VERSION: 2\nMODEL: {{META_ARCHITECTURE: RetinaNet, ANCHOR_GENERATOR: {generator}}}\n"
    )
    for name in (NAME, UNTRAINED):
        tiny.write(folder / name, {"_BASE_": "../Base.yaml", "MODEL": {"WEIGHTS": START}})
    monkeypatch.setattr(zoo, "ZOO", folder)
    return folder


@pytest.mark.parametrize("as_path", [True, False])
def test_a_zoo_name_is_the_trained_detector(generated, as_path):
    source = read_teacher(str(generated / NAME) if as_path else NAME)
    assert source.weights.endswith(TRAINED)


def test_weights_that_are_given_come_first(generated):
    assert read_teacher(NAME, "own.pth").weights == "own.pth"
    assert read_teacher(NAME, opts=["MODEL.WEIGHTS", "opts.pth"]).weights == "opts.pth"
    assert read_teacher(NAME, "own.pth", ["MODEL.WEIGHTS", "opts.pth"]).weights == "own.pth"


def test_a_start_of_training_is_no_teacher(generated, tmp_path):
    tiny.write(tmp_path / "own.yaml", {"VERSION": 2, "MODEL": {"WEIGHTS": START}})
    for name in (UNTRAINED, str(tmp_path / "own.yaml")):
        with pytest.raises(ValueError, match=f"must name a trained detector; got '{START}', what"):
            read_teacher(name)


def test_anchors_that_are_written_as_arithmetic_are_read(generated):
    sizes = load_config(zoo.find_teacher_config(NAME)).MODEL.ANCHOR_GENERATOR.SIZES
    assert [row[0] for row in sizes] == [32, 64, 128, 256, 512]
    assert sizes[0] == pytest.approx([32, 40.3174736, 50.7968336])


def test_what_the_zoo_has_not_trained_has_no_address():
    assert zoo_checkpoint(NAME).endswith(TRAINED)
    assert zoo_checkpoint("COCO-Detection/none.yaml") == ""


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="this Detectron2 comes without its zoo's configs")
def test_every_config_of_the_official_zoo_is_read_or_refused_in_a_sentence():
    known, refused = 0, {}
    names = [path.relative_to(OFFICIAL).as_posix() for path in OFFICIAL.rglob("*.yaml")]
    assert len(names) > 80
    for name in names:
        try:
            known += read_teacher(name).weights.endswith(".pkl")
        except ValueError as error:
            refused[name] = str(error).partition(";")[0]
    assert known >= 60
    assert set(refused.values()) == {
        "MODEL.LOAD_PROPOSALS must be False",
        "MODEL.DISTILL.TEACHER.WEIGHTS must name a trained detector",
        "MODEL.DISTILL.TEACHER.WEIGHTS must name the teacher's checkpoint",
    }
    trained = [name for name in refused if zoo_checkpoint(name)]
    assert trained == ["COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml"]  # of LOAD_PROPOSALS
