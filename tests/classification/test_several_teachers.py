"""Several teachers of one classifier: what they give, how they combine, and what is refused."""

import logging

import pytest
import torch

from classification.config import load_config
from classification.config_checks import check_config
from classification.models import create_model
from classification.models.weights import save_weights
from classification.several import mean_logits
from tests.classification.distilling import IMAGES, TARGET, build, config
from tests.classification.running import CONFIGS, assert_same_end, sends, train


@pytest.fixture(autouse=True)
def _clean_log():
    yield
    logging.getLogger("classification").handlers.clear()


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Two further teachers, of as many stages and of one more."""
    folder, found = tmp_path_factory.mktemp("others"), []
    for seed, name in enumerate(("resnet8", "resnet14")):
        torch.manual_seed(20 + seed)
        path = folder / f"{name}.pth"
        save_weights(create_model(name, num_classes=5).state_dict(), path)
        found.append([name, str(path)])
    return found


def losses_of(folder, others, *options, methods):
    model, _ = build(config(folder, "TEACHER.OTHERS", others, *options, methods=methods))
    return {k: v.item() for k, v in model.train()(IMAGES, TARGET, 1).items()}


def test_a_loss_is_the_mean_of_those_from_each_teacher(tmp_path, others):
    found = losses_of(tmp_path, others, methods=("KD", "AT"))
    alone = [losses_of(tmp_path, (), methods=("KD", "AT"))]
    for name, weights in others:
        one = "TEACHER.NAME", name, "TEACHER.WEIGHTS", weights
        alone.append(losses_of(tmp_path, (), *one, methods=("KD", "AT")))
    for key in ("loss_kd", "loss_at"):
        assert found[key] == pytest.approx(sum(x[key] for x in alone) / 3, rel=1e-5)
    assert found["loss_ce"] == pytest.approx(alone[0]["loss_ce"], rel=1e-6)


def test_averaged_logits_are_those_of_one_teacher(tmp_path, others):
    options = "TEACHER.COMBINE", "logits"
    model, _ = build(config(tmp_path, "TEACHER.OTHERS", others, *options, methods=("KD",)))
    each, _ = build(config(tmp_path, "TEACHER.OTHERS", others, methods=("KD",)))
    mean = model.classify_as_teacher(IMAGES)
    torch.testing.assert_close(mean, each.classify_as_teacher(IMAGES))
    view = each.teacher(IMAGES)
    logits = [view.logits, *(x.logits for x in view.others)]
    torch.testing.assert_close(mean, sum(logits) / 3)
    torch.testing.assert_close(mean, mean_logits(view))
    assert model.train()(IMAGES, TARGET, 1)["loss_kd"] < each.train()(IMAGES, TARGET, 1)["loss_kd"]


def test_balanced_teachers_train(tmp_path, others):
    found = losses_of(tmp_path, others, "TEACHER.COMBINE", "balanced", methods=("DKD",))
    plain = losses_of(tmp_path, others, methods=("DKD",))
    assert found["loss_dkd"] != pytest.approx(plain["loss_dkd"], rel=1e-4)


def test_a_run_goes_on_exactly_and_names_its_teachers(tmp_path, monkeypatch, capsys):
    weights = []
    for seed in (0, 1):
        train(tmp_path / f"teacher_{seed}", "SOLVER.EPOCHS", 1, "SEED", seed)
        weights.append(str(tmp_path / f"teacher_{seed}" / "last.pth"))
    options = [
        "TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", weights[0],
        "TEACHER.OTHERS", f"[['resnet8', '{weights[1]}']]", "SOLVER.EPOCHS", 2,
        "DISTILL.METHODS", "('ReviewKD', 'DKD')",
    ]  # fmt: skip
    assert train(tmp_path / "whole", *options, config="student") == 0
    assert "Teacher resnet8 and resnet8: top-1" in capsys.readouterr().out
    with monkeypatch.context() as patched:
        sends(patched, 2, calls=6)
        assert train(tmp_path / "cut", *options, config="student") == 128 + 2
    assert train(tmp_path / "cut", *options, config="student", resume=True) == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


def test_what_does_not_go_together_is_refused(tmp_path, others):
    def check(*options, methods=("KD",), others=others):
        check_config(config(tmp_path, "TEACHER.OTHERS", others, *options, methods=methods))

    with pytest.raises(ValueError, match=r"METHODS AT must have levels, which several teachers"):
        check("TEACHER.COMBINE", "balanced", methods=("AT",))
    with pytest.raises(ValueError, match=r"METHODS Jacobian must have gradients on the images"):
        check(methods=("Jacobian",))
    with pytest.raises(ValueError, match=r"METHODS SimKD must have a classifier that is replaced"):
        check(methods=("SimKD",))
    with pytest.raises(
        ValueError, match=r"OTHERS must hold \[NAME, WEIGHTS\] of each; got 'resnet8'"
    ):
        check(others=["resnet8", "a.pth"])
    with pytest.raises(ValueError, match=r"LARGEST_WEIGHT must be from 1 / 3, .* to 1; got 0.2"):
        check("TEACHER.LARGEST_WEIGHT", 0.2)
    with pytest.raises(ValueError, match=r"COMPILE must be none with TEACHER.COMBINE balanced"):
        check("TEACHER.COMBINE", "balanced", "SOLVER.COMPILE", "default")
    with pytest.raises(ValueError, match=r"OTHERS must be \(\) with TEACHER.NAME average"):
        check("TEACHER.NAME", "average", "SOLVER.EMA_DECAY", 0.9)
    with pytest.raises(ValueError, match=r"TEACHER.COMBINE must be of each, balanced, logits"):
        load_config(CONFIGS / "teacher.yaml", ["TEACHER.COMBINE", "mean"])
