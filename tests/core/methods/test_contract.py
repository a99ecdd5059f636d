"""What every registered method keeps to; the next one is tested by being registered."""

import dataclasses

import pytest
import torch

from reviewkd_det.core import (
    LevelMethod,
    Need,
    SettingError,
    find_method,
    registered_methods,
)
from tests.core.methods import samples
from tests.core.methods.naive import NAIVE

METHODS = registered_methods()
PYRAMIDS = {"other channels": samples.SAME_SIZES, "smaller": samples.SMALLER, "same": samples.SAME}
HALF = [torch.bfloat16, torch.float16]

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
each_pyramid = pytest.mark.parametrize("teacher", PYRAMIDS.values(), ids=PYRAMIDS)


def learning(view):
    return samples.changed(view, lambda x: x.clone().requires_grad_())


def needed(method, view):
    """What a method reads of a view."""
    levels = view.levels if Need.LEVELS in method.needs else []
    if hasattr(method.Settings(), "level"):
        levels = levels[-1:]
    rows = {
        Need.LOGITS: view.logits,
        Need.VECTOR: view.peers[0].vector if Need.PEERS in method.needs else view.vector,
        Need.INPUT_GRADIENT: view.input_gradient,
        Need.DELTAS: view.deltas,
        Need.MASKS: view.masks,
        Need.OBJECTNESS: view.objectness,
        Need.BRANCHES: view.classes.maps[0],
        Need.SHARED: view.shared,
    }
    return [*levels, *(x for need, x in rows.items() if need in method.needs)]


def of_the_stage(built, *views):
    """The loss of what is trained before the student, if there is something."""
    return {} if built.teaches_in_stage else {"stage": built.forward_stage(*views)[""]}


def unmasked(method):
    """Settings without random numbers."""
    return {"mask_ratio": 0.0} if hasattr(method.Settings(), "mask_ratio") else {}


@every_method
@each_pyramid
def test_student_and_adapters_get_gradients_and_the_teacher_none(method, teacher):
    built = samples.make(method, teacher=teacher).train()
    student, taught = learning(samples.view(samples.STUDENT, 1)), samples.view(teacher, 2)
    views, asked = (student, taught, samples.truth()), []
    samples.total({**built(*views), **of_the_stage(built, *views)}).backward()
    inputs = needed(method, student)
    for x in [*inputs, *built.parameters()]:
        assert x.grad is not None
        assert x.grad.isfinite().all()
    assert all(level.grad.any() for level in inputs)
    samples.changed(taught, lambda x: asked.append(x.requires_grad))
    assert not any(asked)


@every_method
@each_pyramid
def test_the_loss_is_that_of_a_naive_second_implementation(method, teacher, request):
    name = request.node.callspec.id.split("-")[1]
    built = samples.make(method, teacher=teacher).double().train()
    student, taught = (
        samples.view(levels, seed, dtype=torch.float64)
        for levels, seed in ((samples.STUDENT, 1), (teacher, 2))
    )
    torch.manual_seed(4)
    with torch.no_grad():
        expected = NAIVE[name](built, student, taught, samples.truth())
    found = samples.total(samples.run(built, student, taught, samples.truth())).detach()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_each_method_has_a_naive_second_implementation():
    assert set(NAIVE) == set(METHODS)


@every_method
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_half_precision_stays_finite(method, dtype, scale):
    built = samples.make(method).train()
    student, taught = (
        samples.view(levels, seed, scale=scale, dtype=dtype)
        for levels, seed in ((samples.STUDENT, 1), (samples.SAME_SIZES, 2))
    )
    student = learning(student)
    with torch.autocast("cpu", dtype):
        views = student, taught, samples.truth()
        parts, stage = built(*views), of_the_stage(built, *views)
    assert all(x.dtype == torch.float32 for x in [*parts.values(), *stage.values()])
    loss = method.Settings().loss_weight * samples.total(parts)
    (loss + sum(stage.values())).backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in built.parameters())


@every_method
def test_the_order_of_the_batch_does_not_matter(method):
    if Need.SAMPLE in method.needs:
        pytest.skip("its negative images are drawn")
    built = samples.make(method, **unmasked(method)).double().train()
    student, taught = (
        samples.view(levels, seed, dtype=torch.float64)
        for levels, seed in ((samples.STUDENT, 1), (samples.SAME_SIZES, 2))
    )
    turned = [samples.part(v, [2, 0, 1]) for v in (student, taught)]
    torch.testing.assert_close(
        samples.total(built(*turned, samples.truth((2, 0, 1)))),
        samples.total(built(student, taught, samples.truth())),
    )


@every_method
def test_a_state_dict_brings_back_the_method(method):
    inputs = samples.view(samples.STUDENT, 1), samples.view(samples.SAME_SIZES, 2), samples.truth()
    first = samples.make(method).train()
    first(*inputs)
    second = samples.make(method, seed=3)
    second.load_state_dict(first.state_dict())
    losses = [samples.run(built.eval(), *inputs) for built in (first, second)]
    torch.testing.assert_close(*losses, rtol=0, atol=0)


@every_method
def test_one_cell_and_one_image_are_handled(method):
    cells = ((4, (1, 1)), (6, (1, 1)))
    built = samples.make(method, student=cells, teacher=cells).eval()
    views = [samples.part(samples.view(cells, seed), [0]) for seed in (1, 2)]
    parts = built(*views, samples.truth((0,)))
    assert all(x.isfinite() for x in parts.values())


@every_method
def test_parts_are_named_by_their_levels(method):
    inputs = samples.view(samples.STUDENT, 1), samples.view(samples.SAME_SIZES, 2), samples.truth()
    parts = samples.make(method)(*inputs)
    by_level = issubclass(method, LevelMethod) or method is find_method("ReviewKD")
    own = {"RPNLogits": ["objectness", "boxes"], "CrossKD": ["classes", "boxes"],
           "ONE": ["branches", "ensemble"]}  # fmt: skip
    of_one = next((x for name, x in own.items() if method is find_method(name)), [""])
    assert list(parts) == (["fine", "coarse"] if by_level else of_one)
    assert all(x.shape == () for x in parts.values())


@every_method
def test_settings_have_a_meaning_and_refuse_what_is_out_of_range(method):
    for field in dataclasses.fields(method.Settings):
        assert field.metadata["meaning"].endswith(".")
        assert field.metadata["meaning"][0].isupper() or field.metadata["meaning"][0] == '"'
        with pytest.raises(SettingError, match=f"{field.name} must be of type"):
            method.Settings(**{field.name: object()})
    with pytest.raises(SettingError, match=r"loss_weight must not be negative; got -1.0"):
        method.Settings(loss_weight=-1.0)


@every_method
def test_a_float_may_be_a_whole_number(method):
    assert method.Settings(loss_weight=3).loss_weight == 3


WIDE = ((32, (8, 12)), (32, (4, 6)))  # which groups of 32 divide
OTHER = {
    "norm": "GN", "fusion": "sum", "teacher_scale": "rms", "pool_sizes": (2,), "levels": (1,),
    "level": 0, "standardize": True, "mask": "cells", "mask_ratio": 0.5, "temperatures": (1,),
    "most_levels": 1, "margin": 50.0, "correct": 0.5, "ensemble": "mean",
}  # fmt: skip
LATER = ("gradient_share", "stage_share", "momentum")  # what changes no first loss


@every_method
def test_every_setting_changes_the_loss(method):
    def loss(**settings):
        built = samples.make(method, teacher=WIDE, **settings)
        views = samples.view(samples.STUDENT, 1), samples.view(WIDE, 2)
        parts = samples.run(built, *views, samples.truth())
        return samples.total(parts).item() * built.settings.loss_weight

    common = {"mid_channels": 32} if hasattr(method.Settings(), "mid_channels") else {}
    plain = loss(**common)
    for field in dataclasses.fields(method.Settings):
        if field.name in LATER:
            continue
        value = getattr(method.Settings(**common), field.name)
        other = OTHER[field.name] if field.name in OTHER else 2 * value
        if field.name == "most_levels":
            common = {"levels": ()}
            plain = loss(**common)
        if method is find_method("FSP") and field.name == "levels":
            other = (1, 0)
        assert loss(**{**common, field.name: other}) != pytest.approx(plain, rel=1e-6), field.name
