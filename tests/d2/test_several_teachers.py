"""Several teachers of one detector."""

import pytest
import torch

from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.registered import build_model
from reviewkd_det.d2.runs.description import describe
from tests.d2 import tiny
from tests.d2.test_meta_arch import step

METHODS = {"METHODS": ["ReviewKD", "DKD"], "REVIEWKD": {"LOSS_WEIGHT": 1.0}}


def save_teachers(path):
    """Three teachers of other weights; the config and checkpoint of each."""
    found = []
    for seed in range(3):
        folder = path / f"teacher_{seed}"
        folder.mkdir()
        config, file = tiny.save_teacher(folder), folder / "teacher.pth"
        state = torch.load(file, weights_only=True)["model"]
        torch.manual_seed(10 + seed)
        for name in [x for x in state if x.endswith("weight")]:
            state[name] = state[name] * (1 + 0.1 * torch.randn_like(state[name]))
        torch.save({"model": state}, file)
        found.append([str(config), str(file)])
    return found


def build(path, teachers, **distill):
    (config, weights), *others = teachers
    teacher = {"CONFIG_FILE": config, "WEIGHTS": weights, "OTHERS": others}
    student = tiny.save_student(path, distill={**METHODS, "TEACHER": teacher, **distill})
    torch.manual_seed(0)
    return build_model(load_config(student)).train()


def losses(model):
    torch.manual_seed(1)
    return step(model, tiny.batch())[0]


def test_a_loss_is_the_mean_of_those_from_each(tmp_path):
    teachers = save_teachers(tmp_path)
    found = losses(build(tmp_path, teachers))
    alone = [losses(build(tmp_path, [each])) for each in teachers]
    dkd = [x["loss_dkd"].item() for x in alone]
    assert len({round(x, 6) for x in dkd}) == 3
    assert found["loss_dkd"].item() == pytest.approx(sum(dkd) / 3, rel=1e-5)
    # Each teacher has fusions of its own, of which only the first begin as those of one alone.
    assert found["loss_reviewkd"] > 0
    own = {key: x.item() for key, x in found.items() if key not in ("loss_dkd", "loss_reviewkd")}
    assert own == pytest.approx({key: alone[0][key].item() for key in own}, rel=1e-6)


def test_levels_of_each_teach_without_parameters_too(tmp_path):
    teachers = save_teachers(tmp_path)
    pkd = {"METHODS": ["AT"], "AT": {"LOSS_WEIGHT": 1.0}}
    found = losses(build(tmp_path, teachers, **pkd))["loss_at"].item()
    alone = [losses(build(tmp_path, [each], **pkd))["loss_at"].item() for each in teachers]
    assert found == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_it_is_said_and_the_state_is_the_students_alone(tmp_path):
    teachers = save_teachers(tmp_path)
    model = build(tmp_path, teachers)
    assert " and 2 more with ReviewKD" in describe(model, teachers[0][0])
    assert set(model.state_dict()) == set(model.student.state_dict())
    assert not any("others" in name for name, _ in model.named_parameters())


def test_paths_are_those_of_the_file_that_names_them(tmp_path):
    ((config, _), *_), name = save_teachers(tmp_path), "teacher_0"
    (tmp_path / "student.yaml").write_text(
        "MODEL: {META_ARCHITECTURE: DistilledDetector, DISTILL: {TEACHER: {OTHERS: "
        f"[[{name}/teacher.yaml, ''], [COCO-Detection/x.yaml, b.pth]]}}}}}}\n"
    )
    cfg = load_config(tmp_path / "student.yaml")
    assert [[config, ""], ["COCO-Detection/x.yaml", "b.pth"]] == cfg.MODEL.DISTILL.TEACHER.OTHERS


def test_what_is_no_pair_is_refused(tmp_path):
    (first, *_) = save_teachers(tmp_path)
    with pytest.raises(ValueError, match=r"OTHERS must hold \[config, checkpoint\] of each; got"):
        build(tmp_path, [first, ["a.yaml"]])
