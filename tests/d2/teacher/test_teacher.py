import pytest
import torch
from detectron2.modeling import Backbone, build_model

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.teacher.backbone import TeacherBackbone
from reviewkd_det.d2.teacher.build import TeacherLoader
from tests.d2 import tiny


class Recorder(Backbone):
    def forward(self, batch):
        self.batch = batch
        return {"p2": batch}


def student_config(folder, opts=(), **extra):
    return load_config(tiny.save_student(folder, **extra), opts)


def test_channels_are_reordered_before_they_are_normalised_with_the_teachers_numbers():
    mean, std = [10.0, 20.0, 30.0], [2.0, 4.0, 5.0]
    recorder = Recorder()
    teacher = TeacherBackbone(recorder, mean, std, reverse_channels=True)
    image = torch.tensor([130.0, 60.0, 12.0]).view(3, 1, 1).expand(3, 4, 6)
    teacher([image], (5, 8))
    inside = recorder.batch[0, :, :4, :6]
    expected = torch.tensor([(12 - 10) / 2, (60 - 20) / 4, (130 - 30) / 5]).view(3, 1, 1)
    torch.testing.assert_close(inside, expected.expand(3, 4, 6))
    assert recorder.batch.shape == (1, 3, 5, 8)
    assert not recorder.batch[0, :, 4:].any()
    assert not recorder.batch[0, :, :, 6:].any()


@pytest.mark.parametrize(("ours", "theirs"), [("RGB", "BGR"), ("BGR", "BGR")])
def test_the_teacher_computes_what_its_own_detector_would(tmp_path, ours, theirs):
    numbers = {"PIXEL_MEAN": [100.0, 110.0, 120.0], "PIXEL_STD": [50.0, 60.0, 70.0]}
    model = tiny.merged(tiny.R_CNN, numbers)
    config = tiny.save_teacher(tmp_path, model, INPUT={"FORMAT": theirs})
    inputs = tiny.batch()
    stock = build_model(load_config(config)).eval()
    stock.load_state_dict(torch.load(tmp_path / "teacher.pth", weights_only=True)["model"])
    images = stock.preprocess_image(inputs)  # in the teacher's own order
    with torch.no_grad():
        expected = stock.backbone(images.tensor)
    teacher = TeacherLoader.from_config(student_config(tmp_path, INPUT={"FORMAT": ours}))()
    seen = [x["image"].flip(0) if ours != theirs else x["image"] for x in inputs]
    levels = teacher(seen, tuple(images.tensor.shape[-2:]))
    assert set(levels) == set(expected)
    for name, value in levels.items():
        # Its batch norms are folded, which rounds otherwise.
        largest = expected[name].abs().max().item()
        torch.testing.assert_close(value, expected[name], rtol=0, atol=5e-5 * largest)


def test_weights_and_options_of_the_student_config_come_first(tmp_path):
    tiny.save_teacher(tmp_path)
    twin = torch.load(tmp_path / "teacher.pth", weights_only=True)
    name = "backbone.fpn_output2.weight"
    twin["model"][name] = torch.full_like(twin["model"][name], 0.125)
    torch.save(twin, tmp_path / "other.pth")
    opts = [
        "MODEL.DISTILL.TEACHER.WEIGHTS", str(tmp_path / "other.pth"),
        "MODEL.DISTILL.TEACHER.OPTS", "['MODEL.PIXEL_MEAN', '[1.0, 2.0, 3.0]']",
    ]  # fmt: skip
    teacher = TeacherLoader.from_config(student_config(tmp_path, opts))().module
    assert (teacher.backbone.fpn_output2.weight == 0.125).all()
    assert teacher.pixel_mean.flatten().tolist() == [1.0, 2.0, 3.0]


def damage(folder, change):
    tiny.save_teacher(folder)
    checkpoint = torch.load(folder / "teacher.pth", weights_only=True)
    change(checkpoint["model"])
    torch.save(checkpoint, folder / "teacher.pth")
    return student_config(folder)


def test_missing_backbone_weights_are_listed(tmp_path):
    cfg = damage(tmp_path, lambda m: [m.pop(f"backbone.fpn_output{i}.weight") for i in (2, 4)])
    words = r"TEACHER.WEIGHTS must .*missing 2: backbone.fpn_output2.weight, backbone.fpn_output4"
    with pytest.raises(ValueError, match=words):
        TeacherLoader.from_config(cfg)()


def test_head_weights_may_be_missing(tmp_path):
    heads = ("proposal_generator.", "roi_heads.")
    cfg = damage(tmp_path, lambda m: [m.pop(k) for k in list(m) if k.startswith(heads)])
    TeacherLoader.from_config(cfg)()


def test_backbone_weights_of_another_shape_are_listed_with_both(tmp_path):
    cfg = damage(tmp_path, lambda m: m.update({"backbone.fpn_output2.bias": torch.zeros(5)}))
    with pytest.raises(ValueError, match=r"backbone.fpn_output2.bias \(5,\) for \(24,\)"):
        TeacherLoader.from_config(cfg)()


@pytest.mark.parametrize("name", ["teacher.pth", "teacher.pkl"])
def test_a_truncated_checkpoint_is_refused(tmp_path, name):
    tiny.save_teacher(tmp_path)
    path = tmp_path / name
    path.write_bytes((tmp_path / "teacher.pth").read_bytes()[:2000])
    cfg = student_config(tmp_path, ["MODEL.DISTILL.TEACHER.WEIGHTS", str(path)])
    with pytest.raises(ValueError, match=rf"TEACHER.WEIGHTS must be a checkpoint .*{name}'"):
        TeacherLoader.from_config(cfg)()


def test_a_checkpoint_that_does_not_exist_is_refused(tmp_path):
    tiny.save_teacher(tmp_path)
    cfg = student_config(tmp_path, ["MODEL.DISTILL.TEACHER.WEIGHTS", "nowhere/model.pth"])
    words = "TEACHER.WEIGHTS must name a file that exists; got 'nowhere/model.pth'"
    with pytest.raises(FileNotFoundError, match=words):
        TeacherLoader.from_config(cfg)()


def test_no_checkpoint_at_all_is_refused(tmp_path):
    tiny.save_teacher(tmp_path)
    cfg = student_config(tmp_path, ["MODEL.DISTILL.TEACHER.OPTS", "['MODEL.WEIGHTS', '']"])
    with pytest.raises(ValueError, match=r"TEACHER.WEIGHTS must name the teacher's checkpoint"):
        TeacherLoader.from_config(cfg)()


def test_a_teacher_config_that_does_not_exist_is_refused(tmp_path):
    cfg = student_config(tmp_path)  # no teacher.yaml beside it
    words = "TEACHER.CONFIG_FILE must name a config file or .*; got 'teacher.yaml'; shipped: COCO-"
    with pytest.raises(FileNotFoundError, match=words):
        TeacherLoader.from_config(cfg)()
    cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE = ""
    with pytest.raises(ValueError, match="must name the teacher's config file; got ''"):
        TeacherLoader.from_config(cfg)()


def test_a_channel_order_that_is_no_reversal_is_refused(tmp_path):
    tiny.save_teacher(tmp_path, INPUT={"FORMAT": "L"})
    with pytest.raises(ValueError, match="or RGB and BGR; got BGR and L"):
        TeacherLoader.from_config(student_config(tmp_path))()
