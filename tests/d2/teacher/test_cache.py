"""Levels that a teacher remembers: what is asked again, what is computed, and what comes of it."""

import pytest
import torch

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.teacher.build import TeacherLoader
from reviewkd_det.d2.teacher.cache import GIGABYTE, LevelCache
from tests.d2 import tiny
from tests.d2.runs.test_mixed_precision import run
from tests.d2.runs.test_trainer import trainer_for

KEY = "MODEL.DISTILL.TEACHER.CACHE"
SIZE = (8, 12)


def images(*values):
    return [torch.full((3, *SIZE), value, dtype=torch.uint8) for value in values]


class Teacher:
    """Levels of random numbers of each image's first pixel, and what it was asked for."""

    def __init__(self, scale=1.0, dtype=torch.float32):
        self.scale, self.dtype, self.asked = scale, dtype, []

    def __call__(self, batch, padded_size):
        self.asked.append([int(image[0, 0, 0]) for image in batch])
        draws = [torch.Generator().manual_seed(int(image[0, 0, 0])) for image in batch]
        maps = torch.stack([torch.randn(5, *padded_size, generator=draw) for draw in draws])
        return {"p2": (self.scale * maps).to(self.dtype), "p3": maps[..., ::2, ::2].to(self.dtype)}


def test_an_image_is_computed_once_and_answered_as_it_was():
    teacher, cache = Teacher(), LevelCache(1.0)
    first = cache(images(1, 2), SIZE, teacher)
    second = cache(images(2, 3, 1, 3), SIZE, teacher)
    assert teacher.asked == [[1, 2], [3]]
    assert (cache.asked, cache.answered) == (6, 3)
    exact = Teacher()(images(2, 3, 1, 3), SIZE)
    for name, level in second.items():
        assert level.dtype == torch.float32
        assert torch.equal(level[[2, 0]], first[name])
        torch.testing.assert_close(level, exact[name], rtol=2**-11, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image + 1,
        lambda image: image[:, :-1],
        lambda image: image.flip(2),
        lambda image: image.transpose(1, 2),
        lambda image: image.float(),
    ],
)
def test_another_view_of_an_image_is_another_one(change):
    image = torch.arange(3 * 8 * 12, dtype=torch.uint8).reshape(3, 8, 12)
    teacher, cache = Teacher(), LevelCache(1.0)
    cache([image], SIZE, teacher)
    cache([change(image)], SIZE, teacher)
    cache([image], (16, 12), teacher)
    assert len(teacher.asked) == 3
    assert cache.answered == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_levels_beyond_half_precision_stay_as_they_are(dtype):
    scale = 1e6 if dtype != torch.float16 else 1.0
    teacher, cache = Teacher(scale, dtype), LevelCache(1.0)
    exact = teacher(images(7), SIZE)["p2"]
    for _ in range(2):
        level = cache(images(7), SIZE, teacher)["p2"]
        assert level.dtype == dtype
        assert torch.equal(level, exact)


def test_a_full_cache_keeps_what_it_has_and_says_so_once(caplog):
    teacher = Teacher()
    one = sum(level[0].nbytes // 2 for level in teacher(images(0), SIZE).values())
    cache = LevelCache(2 * one / GIGABYTE)
    for value in (1, 2, 3, 3, 1, 4):
        cache(images(value), SIZE, teacher)
    assert teacher.asked == [[0], [1], [2], [3], [3], [4]]
    assert caplog.text.count("is full with the levels of 2 images and has answered 0%") == 1


def test_a_run_with_a_cache_ends_as_one_without_but_for_the_rounding(tmp_path):
    cfg = trainer_for(tmp_path, MAX_ITER=6, IMS_PER_BATCH=4, BASE_LR=1e-4)
    ends = {}
    for cfg.MODEL.DISTILL.TEACHER.CACHE in (0.0, 1.0):
        cfg.OUTPUT_DIR = str(tmp_path / f"run_{cfg.MODEL.DISTILL.TEACHER.CACHE}")
        trainer, _ = run(cfg)
        cache = trainer.model.teacher.module.cache
        ends[cache is not None] = trainer.model.state_dict()
    assert cache.asked == 16  # after two thirds the method has ended
    assert cache.answered > 0
    assert "teacher_cache" in (tmp_path / "run_1.0" / "metrics.json").read_text()
    torch.testing.assert_close(ends[True], ends[False], rtol=0.05, atol=1e-3)


def test_a_precision_is_chosen_by_what_is_computed(tmp_path, monkeypatch):
    tiny.save_teacher(tmp_path)
    monkeypatch.setattr(
        "reviewkd_det.d2.teacher.precision.computes_in_bfloat16", lambda device: True
    )
    opts = [KEY, "1.0", "MODEL.DISTILL.TEACHER.PRECISION", "auto"]
    with_cache = TeacherLoader.from_config(load_config(tiny.save_student(tmp_path), opts))()
    without = TeacherLoader.from_config(load_config(tiny.save_student(tmp_path), opts[2:]))()
    assert with_cache.module.precision == without.module.precision
    assert with_cache.module.cache.asked == 0


def test_crops_are_warned_of(tmp_path, caplog):
    tiny.save_teacher(tmp_path)
    config = tiny.save_student(tmp_path)
    TeacherLoader.from_config(load_config(config, [KEY, "1.0"]))
    assert not caplog.text
    TeacherLoader.from_config(load_config(config, [KEY, "1.0", "INPUT.CROP.ENABLED", "True"]))
    assert f"{KEY} answers hardly anything with INPUT.CROP.ENABLED True" in caplog.text


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_negative_size_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=f"{KEY} must not be negative; got {value}"):
        TeacherLoader("config.yaml", cache=value)
