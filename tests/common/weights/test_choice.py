"""Which network of a file is taken: each array tells by its value whose it is."""

import logging

import numpy as np
import pytest
import torch

from reviewkd_det.common.weights.choice import Wanted, find_weights

KEY = "MODEL.WEIGHTS"
SHAPES = {
    "stem.conv.weight": (2, 3),
    "stem.conv.bias": (2,),
    "layer1.0.weight": (4,),
    "fc.bias": (3,),
}
STUDENT, TEACHER, AVERAGE = 1.0, 2.0, 3.0


def network(value, prefix=""):
    return {prefix + name: torch.full(shape, value) for name, shape in SHAPES.items()}


def find(content, role="student", entry="", shapes=SHAPES):
    return find_weights(content, Wanted(shapes, role, KEY, entry), "FILE").part


def taken(content, role="student", entry=""):
    """The value that all weights of a network have that fits in names and shapes."""
    state = find(content, role, entry).state
    assert {name: tuple(value.shape) for name, value in state.items()} == SHAPES
    (value,) = {float(x) for array in state.values() for x in np.asarray(array).flatten()}
    return value


def pair(student, teacher):
    return network(1.0, student) | network(2.0, teacher)


BESIDE = {"module.connector.0.weight": torch.ones(5), "module.student_proj.weight": torch.ones(5)}
BOTH = {
    "mdistiller": {"model": pair("module.student.", "module.teacher.") | BESIDE},
    "this project's origin": {"model": pair("", "teacher.")},
    "mean teacher": {"model": pair("modelStudent.", "modelTeacher.")},
    "lightning": {"state_dict": pair("student.net.", "teacher.net."), "epoch": 3},
    "dino": {"student": network(1.0, "module."), "teacher": network(2.0, "module."), "epoch": 3},
    "short": pair("model_s.", "model_t."),
    "compiled": pair("_orig_mod.module.student.", "_orig_mod.module.teacher."),
    "compiled inside": pair("student._orig_mod.", "teacher._orig_mod."),
    "unusual": pair("lit.student.", "lit.teacher."),
}


@pytest.mark.parametrize("kind", BOTH)
def test_each_role_takes_its_own_and_either_can_be_named(kind):
    for content in (BOTH[kind], dict(reversed(BOTH[kind].items()))):
        assert taken(content, "student") == STUDENT
        assert taken(content, "teacher") == TEACHER
    named = {"mean teacher": "modelTeacher", "short": "model_t"}.get(kind, "teacher")
    assert taken(BOTH[kind], "student", named) == TEACHER


@pytest.mark.parametrize(
    "content",
    [
        network(1.0),
        {"state_dict": network(1.0, "module."), "meta": {}, "optimizer": {"state": {0: {}}}},
        {"model_state_dict": network(1.0), "optimizer_state_dict": network(7.0)},
        {"model": {"state_dict": network(1.0, "net.")}, "best_acc": torch.tensor(7.0)},
        {"module": network(1.0), "ds_config": {}, "lr_scheduler": None},
        {"weights": {k: v.numpy() for k, v in network(1.0).items()}},
        network(1.0, "module._orig_mod.") | {"n_averaged": torch.tensor(7)},
        network(1.0, "_orig_mod.module.model."),
        network(1.0, "lit.encoder."),
        {"stem.conv._orig_mod.weight": torch.ones(2, 3)} | dict([*network(1.0).items()][1:]),
        {"other": {k: torch.ones(9) for k in SHAPES}, "this": network(1.0)},
        {"epoch_ema": network(3.0), "net": network(1.0), "zoo": network(3.0)},
        {"model": network(1.0), "trained": {"model": network(3.0), "updates": 4}},  # ours
    ],
)
def test_one_network_is_found_however_it_is_wrapped(content):
    assert taken(content) == taken(content, "teacher") == STUDENT


@pytest.mark.parametrize("plain", ["model", "state_dict"])
@pytest.mark.parametrize("average", ["model_ema", "ema_state_dict", "state_dict_ema", "ema", "swa"])
def test_averaged_weights_are_taken_where_they_are_alone_or_named(plain, average):
    content = {average: network(3.0, "module."), plain: network(1.0)}
    assert taken(content) == STUDENT
    assert taken(content, entry=average) == taken(content, entry=f"{average}.module.") == AVERAGE
    assert taken({average: network(3.0, "module.")}) == AVERAGE


def test_a_teacher_is_taken_though_it_is_an_average_and_a_student_is_not():
    for theirs in ("teacher_ema", "ema_teacher"):
        content = {theirs: network(2.0), "student_ema": network(3.0), "model": network(1.0)}
        assert (taken(content), taken(content, "teacher")) == (STUDENT, TEACHER)


def test_a_small_student_of_other_names_beside_a_large_teacher_is_found():
    student = {f"student.conv{i}.weight": torch.ones(1) for i in range(9)}
    teacher = {f"teacher.block{i}.weight": torch.zeros(1) for i in range(99)}
    assert len(find(student | teacher).state) == 9
    assert len(find(student | teacher, "teacher").state) == 99


def test_names_of_the_networks_own_that_look_like_a_wrappers_stay():
    shapes = {"model.0.weight": (2,), "module.teacher.weight": (3,)}
    state = {name: torch.ones(shape) for name, shape in shapes.items()}
    assert find(state, shapes=shapes).state == state
    wrapped = {f"module.model.{name}": value for name, value in state.items()}
    assert find(wrapped, shapes=shapes).state == state


def test_names_of_another_library_lose_what_wrappers_put_before_them():
    state = {f"layer{i}.0.conv1.weight": torch.ones(1) for i in range(8)}
    wrapped = {f"module.student.{name}": value for name, value in state.items()}
    assert find({"state_dict": wrapped | network(2.0, "module.teacher.")}).state == state


def test_a_line_says_what_was_taken_and_what_was_left(caplog):
    caplog.set_level(logging.INFO)
    find(network(1.0))
    assert not caplog.messages  # plain weights, and nothing else
    find(BOTH["mdistiller"] | {"model_ema": network(3.0), "epoch": 3}, "teacher")
    assert caplog.messages == [
        "MODEL.WEIGHTS: took entry 'model' prefix 'module.teacher.' of 'FILE', 4 names; the "
        "file also holds model (module.student. 4, module. 1, module.student_proj. 1), "
        "model_ema 4, epoch"
    ]


@pytest.mark.parametrize(
    ("content", "entry", "words"),
    [
        (network(2.0, "teacher."), "", r"of the student; .* teacher. 4; .*_ENTRY teacher t"),
        (network(1.0), "ema", r"MODEL.WEIGHTS_ENTRY must name .* 'ema'; it has stem. 2, layer1. 1"),
        ({"a": network(1.0), "b": network(2.0)}, "", r"one network .* entry 'a' and entry 'b'; "),
        (network(1.0, "net_a.") | network(2.0, "net_b."), "", r"prefix 'net_a.' and prefix 'net_b"),
        ({"model": 3, "epoch": 1}, "", r"MODEL.WEIGHTS must hold weights by name; got 'FILE' with"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_with_what_the_file_has(content, entry, words):
    with pytest.raises(ValueError, match=words):
        find(content, "student", entry)


def test_a_teacher_does_not_take_the_student_alone():
    with pytest.raises(ValueError, match=r"weights of the teacher; .* module.student. 4; .*ENTRY"):
        find(network(1.0, "module.student."), "teacher")


@pytest.mark.parametrize(
    ("names", "whose"),
    [
        (("backbone.body.conv1.weight", "rpn.head.conv.weight"), "torchvision's detectors"),
        (("backbone.body.conv1.weight", "head.regression_head.conv.0.0.weight"), "torchvision's"),
        (("backbone.conv1.weight", "neck.convs.0.weight", "roi_head.bbox_head.fc.weight"), "mmdet"),
        (("model.0.conv.weight", "model.22.dfl.conv.weight"), "a YOLO"),
        (("backbone.0.body.conv1.weight", "class_embed.weight"), "a DETR"),
    ],
)
def test_a_detector_of_another_library_is_named(names, whose):
    shared = {"roi_heads.box_predictor.cls_score.weight": torch.ones(3)}
    content = {"meta": {}, "state_dict": dict.fromkeys(names, torch.ones(3)) | shared}
    with pytest.raises(
        ValueError, match=rf"own names; got 'FILE', which is of {whose}.*{names[0]}"
    ):
        find(content, shapes={"backbone.stem.weight": (3,), **dict.fromkeys(shared, (3,))})
