"""Labels that count as much as the teacher is sure of them, against losses written out."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.labels.matched import ImageLabels
from reviewkd_det.d2.labels.soft_losses import check_soft, soft_losses
from reviewkd_det.d2.labels.soft_targets import _with_background
from tests.d2 import tiny

MASKED = tiny.merged(tiny.R_CNN, {"MASK_ON": True})
MODELS = {"two stages": MASKED, "one stage": tiny.RETINANET}


@pytest.fixture(scope="module", params=MODELS)
def student(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("soft")
    torch.manual_seed(0)
    tree = tiny.detector(MODELS[request.param], width=4, pyramid=8)
    model = build_model(load_config(tiny.write(folder / "plain.yaml", tree))).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # so that repeated steps see one model
    return model


def batch(scores=None, probabilities=None):
    inputs = tiny.batch(masks=True)
    for x in inputs:
        if scores is not None:
            x["label_scores"] = torch.tensor(scores)
        if probabilities is not None:
            x["label_probabilities"] = torch.tensor(probabilities)
    return inputs


def step(student, inputs, kind):
    """The losses and the gradient of each parameter."""
    torch.manual_seed(5)
    if hasattr(student, "loss_normalizer"):
        del student.loss_normalizer  # a mean over the steps
    student.zero_grad()
    with EventStorage(), soft_losses(student, inputs, kind):
        losses = student(inputs)
    sum(losses.values()).backward()
    return losses, [p.grad.clone() for p in student.parameters() if p.grad is not None]


def close(first, second):
    """Whether two gradients are one, up to the order of float32 sums."""
    ours, theirs = (torch.cat([x.flatten() for x in gradients]) for gradients in (first, second))
    return float((ours - theirs).norm() / theirs.norm()) < 1e-4


def test_scores_of_one_are_full_labels(student):
    plain, full = step(student, batch(), ""), step(student, batch([1.0, 1.0]), "score")
    assert plain[0] == full[0]
    assert close(plain[1], full[1])


def test_the_gradient_is_linear_in_the_scores_and_the_losses_stay(student):
    given = [step(student, batch([x, y]), "score") for x, y in ((0, 0), (1, 0), (0, 1), (0.3, 0.8))]
    none, first, second, both = (gradients for _, gradients in given)
    assert all(losses == given[0][0] for losses, _ in given)
    expected = [
        n + 0.3 * (a - n) + 0.8 * (b - n) for n, a, b in zip(none, first, second, strict=True)
    ]
    assert close(both, expected)
    assert not close(none, first)
    assert not close(none, second)


def test_a_label_of_score_zero_teaches_no_part_of_the_student(student):
    """What is left is the background."""
    _, gradients = step(student, batch([0.0, 0.0]), "score")
    names = [n for n, p in student.named_parameters() if p.grad is not None]
    by_name = dict(zip(names, gradients, strict=True))
    for name in ("anchor_deltas", "bbox_pred", "mask_head.predictor"):
        found = [x for n, x in by_name.items() if name in n]
        assert not any(x.any() for x in found)
    scored = [x for n, x in by_name.items() if "cls_score" in n or "objectness" in n]
    assert any(x.any() for x in scored)


def test_certain_probabilities_are_full_labels(student):
    certain = [[1.0, 0, 0, 0], [0, 0, 1.0, 0]]  # the batch's classes are 0 and 2
    plain, soft = step(student, batch(), ""), step(student, batch([1, 1], certain), "probabilities")
    for name, loss in plain[0].items():
        torch.testing.assert_close(soft[0][name], loss)
    assert close(plain[1], soft[1])
    unknown = [[float("nan")] * 4] * 2  # of labels that somebody added
    assert step(student, batch([1, 1], unknown), "probabilities")[0] == plain[0]


def test_probabilities_change_the_classification_alone(student):
    unsure = [[0.6, 0.1, 0.1, 0.2], [0.2, 0.2, 0.5, 0.1]]
    plain, soft = step(student, batch(), ""), step(student, batch([1, 1], unsure), "probabilities")
    changed = {name for name in plain[0] if not torch.equal(plain[0][name], soft[0][name])}
    assert changed == {"loss_cls"}


def region_parts():
    """Four proposals, of which two have a label, and the boxes of these."""
    proposals = Instances((64, 96))
    labelled = torch.tensor([[4.0, 6, 30, 40], [20, 10, 60, 44]])
    proposals.gt_boxes = Boxes(labelled[[0, 1, 0, 1]])
    proposals.gt_classes = torch.tensor([0, 2, 3, 3])  # the last two are background
    proposals.proposal_boxes = Boxes(proposals.gt_boxes.tensor + 1)
    return proposals, labelled


def test_soft_targets_of_regions_are_a_cross_entropy(tmp_path):
    tree = tiny.detector(tiny.R_CNN, width=4, pyramid=8)
    student = build_model(load_config(tiny.write(tmp_path / "plain.yaml", tree)))
    predictor = student.roi_heads.box_predictor
    proposals, boxes = region_parts()
    logits = torch.randn(4, 4, requires_grad=True)
    deltas = torch.zeros(4, 12)
    wanted = torch.tensor([[0.7, 0.1, 0.0, 0.2], [0.1, 0.1, 0.8, 0.0]])
    labelled = Instances((64, 96), gt_boxes=Boxes(boxes), gt_classes=torch.tensor([0, 2]))
    inputs = [{"instances": labelled, "label_scores": torch.ones(2), "label_probabilities": wanted}]
    with EventStorage(), soft_losses(student, inputs, "probabilities"):
        loss = predictor.losses((logits, deltas), [proposals])["loss_cls"]
    background = F.one_hot(torch.tensor([3, 3]), 4).float()
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.cat([wanted, background])))


def test_sigmoids_of_a_teacher_become_a_softmax_with_background():
    found = _with_background(torch.tensor([[0.5, 0.2], [0.9, 0.9]]), 2)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.2, 0.3], [0.5, 0.5, 0.0]]))


def test_a_row_finds_its_label_among_equal_boxes_by_its_class():
    box = torch.tensor([[1.0, 2, 3, 4]] * 2)
    labels = ImageLabels(box, torch.tensor([0, 1]), torch.tensor([0.9, 0.4]), None)
    rows = torch.tensor([True, True, False])
    scores = labels.row_scores(box[[0, 0, 0]], torch.tensor([1, 0, 2]), rows)
    assert scores.tolist() == pytest.approx([0.4, 0.9, 1.0])


def test_a_student_whose_losses_are_its_own_is_refused():
    check_soft(torch.nn.Identity(), "")
    with pytest.raises(ValueError, match=r"SOFT must be \"\" for a student without .* got score"):
        check_soft(torch.nn.Identity(), "score")
