import copy

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from reviewkd_det.d2 import DistilledDetector, load_config
from reviewkd_det.d2.config import plain_config
from tests.d2 import tiny

MASK = tiny.merged(tiny.R_CNN, {"MASK_ON": True})
PAIRS = {
    "boxes": (tiny.R_CNN, tiny.R_CNN, ["p2", "p3", "p4", "p5", "p6"]),
    "masks": (tiny.R_CNN, MASK, ["p2", "p3", "p4", "p5", "p6"]),
    "RetinaNet": (tiny.RETINANET, tiny.RETINANET, ["p3", "p4", "p5", "p6", "p7"]),
    "R-CNN to RetinaNet": (tiny.R_CNN, tiny.RETINANET, ["p3", "p4", "p5", "p6"]),
}


def make(folder, teacher=tiny.R_CNN, student=tiny.R_CNN, opts=(), **distill):
    tiny.save_teacher(folder, teacher)
    input_ = {"INPUT": {"MASK_FORMAT": "bitmask"}}
    config = tiny.save_student(folder, student, distill, **input_)
    cfg = load_config(config, opts)
    torch.manual_seed(0)
    return cfg, build_model(cfg)


def step(model, inputs, iteration=0):
    with EventStorage(iteration) as storage:
        losses = model(inputs)
        return losses, storage


@pytest.mark.parametrize("pair", PAIRS)
def test_one_step_of_any_pair(tmp_path, pair):
    teacher, student, levels = PAIRS[pair]
    _, model = make(tmp_path, teacher, student)
    model.train()
    inputs = tiny.batch(masks=pair == "masks")
    plain_names = set(step(model.student, copy.deepcopy(inputs))[0])
    frozen = copy.deepcopy(model.teacher.module.state_dict())
    losses, storage = step(model, inputs)
    assert set(losses) == plain_names | {"loss_reviewkd"}
    assert all(loss.isfinite() for loss in losses.values())
    shares = {k: v for k, (v, _) in storage.latest().items() if k.startswith("loss_reviewkd/")}
    assert list(shares) == [f"loss_reviewkd/{level}" for level in levels]
    assert sum(shares.values()) == pytest.approx(losses["loss_reviewkd"].item(), rel=1e-5)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses["loss_reviewkd"].backward()
    assert all(p.grad is not None for p in model.student.backbone.bottom_up.parameters())
    assert all(p.grad is not None for p in model.methods.parameters())
    assert all(p.grad is None for p in model.teacher.module.parameters())
    model.train()
    optimizer.step()
    for name, value in model.teacher.module.state_dict().items():
        assert torch.equal(value, frozen[name]), name


def test_in_eval_it_is_the_student_and_the_teacher_is_not_called(tmp_path):
    _, model = make(tmp_path)
    model.eval()
    model.teacher.forward = None  # calling it would raise
    inputs = tiny.batch()
    with torch.no_grad():
        (mine, _), (alone, _) = model(inputs), model.student(inputs)
    assert torch.equal(mine["instances"].scores, alone["instances"].scores)
    assert torch.equal(mine["instances"].pred_boxes.tensor, alone["instances"].pred_boxes.tensor)


def test_the_student_is_left_without_hooks(tmp_path):
    _, model = make(tmp_path)
    step(model.train(), tiny.batch())
    assert not model.student.backbone._forward_hooks


def test_its_checkpoint_is_a_plain_one(tmp_path):
    cfg, model = make(tmp_path)
    DetectionCheckpointer(model, str(tmp_path)).save("model")
    saved = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    plain = build_model(plain_config(cfg))
    assert list(saved) == list(plain.state_dict())
    plain.load_state_dict(saved, strict=True)
    for name, value in model.student.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value)


def test_loading_a_plain_checkpoint_fills_the_student(tmp_path):
    cfg, model = make(tmp_path)
    torch.manual_seed(5)
    other = build_model(plain_config(cfg)).state_dict()
    incompatible = model.load_state_dict(other)
    assert not incompatible.missing_keys
    assert not incompatible.unexpected_keys
    for name, value in other.items():
        assert torch.equal(model.student.state_dict()[name], value)


def test_without_methods_no_teacher_is_read_and_the_student_starts_the_same(tmp_path):
    _, distilled = make(tmp_path)
    (tmp_path / "teacher.pth").unlink()
    cfg = load_config(tmp_path / "student.yaml", ["MODEL.DISTILL.METHODS", "()"])
    torch.manual_seed(0)
    baseline = build_model(cfg)
    assert baseline.teacher is None
    for name, value in distilled.state_dict().items():
        assert torch.equal(baseline.state_dict()[name], value), name
    assert "loss_reviewkd" not in step(baseline.train(), tiny.batch())[0]


def test_building_the_teacher_leaves_the_random_state_alone(tmp_path):
    make(tmp_path)
    states = []
    for methods in ["()", "('ReviewKD',)"]:
        torch.manual_seed(0)
        build_model(load_config(tmp_path / "student.yaml", ["MODEL.DISTILL.METHODS", methods]))
        states.append(torch.random.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize(
    ("opts", "iteration", "weight"),
    [
        (["MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT", "2.5"], 0, 2.5),
        (["MODEL.DISTILL.REVIEWKD.WARMUP_ITERS", "10"], 0, 0.0),
        (["MODEL.DISTILL.REVIEWKD.WARMUP_ITERS", "10"], 4, 0.4),
        (["MODEL.DISTILL.REVIEWKD.WARMUP_ITERS", "10"], 30, 1.0),
        (["MODEL.DISTILL.REVIEWKD.DECAY_ITERS", "10"], 0, 1.0),
        (["MODEL.DISTILL.REVIEWKD.DECAY_ITERS", "10"], 4, 0.6),
        (["MODEL.DISTILL.REVIEWKD.DECAY_SHARE", "0.5", "SOLVER.MAX_ITER", "20"], 4, 0.6),
    ],
)
def test_weight_and_warmup_scale_the_loss(tmp_path, opts, iteration, weight):
    one = ["MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT", "1.0"]
    _, model = make(tmp_path, opts=one)
    _, scaled = make(tmp_path, opts=[*one, *opts])
    expected = weight * step(model.train(), tiny.batch())[0]["loss_reviewkd"]
    losses, _ = step(scaled.train(), tiny.batch(), iteration)
    torch.testing.assert_close(losses["loss_reviewkd"], expected)


def test_methods_that_have_ended_cost_nothing(tmp_path):
    opts = ["MODEL.DISTILL.METHODS", "('ReviewKD','DKD')"]
    opts += ["MODEL.DISTILL.REVIEWKD.DECAY_ITERS", "10", "MODEL.DISTILL.DKD.DECAY_ITERS", "20"]
    _, model = make(tmp_path, opts=opts)
    model.train()
    calls = []
    model.teacher.register_forward_hook(lambda *_: calls.append(1))
    batch = [*tiny.batch(), {**tiny.batch()[0], "unlabeled": True}]
    at_first, _ = step(model, batch, 9)
    assert (at_first["loss_reviewkd"] > 0, at_first["loss_dkd"] > 0, len(calls)) == (True, True, 1)
    after_one, _ = step(model, batch, 10)
    assert (after_one["loss_reviewkd"] == 0, after_one["loss_dkd"] > 0) == (True, True)
    assert len(calls) == 2
    torch.manual_seed(0)
    after_all, storage = step(model, batch, 20)
    assert len(calls) == 2
    assert (after_all["loss_reviewkd"] == 0, after_all["loss_dkd"] == 0) == (True, True)
    assert not [name for name in storage.latest() if "/p" in name]
    torch.manual_seed(0)
    alone, _ = step(model.student, tiny.batch())
    for name, loss in alone.items():
        torch.testing.assert_close(after_all[name], loss)


def test_in_features_and_mid_channels_and_norm_shape_the_distiller(tmp_path):
    review = {"IN_FEATURES": ["p4", "p2"], "MID_CHANNELS": 32, "NORM": "GN"}
    tiny.save_teacher(tmp_path)
    student = tiny.save_student(tmp_path, distill={"REVIEWKD": review})
    tree = tiny.yaml.safe_load(student.read_text())
    tree["MODEL"]["DISTILL"]["TEACHER"]["OPTS"] = ["MODEL.FPN.OUT_CHANNELS", 32]
    tree["MODEL"]["DISTILL"]["TEACHER"]["WEIGHTS"] = str(tmp_path / "wide.pth")
    tiny.write(student, tree)
    wide = load_config(tmp_path / "teacher.yaml", ["MODEL.FPN.OUT_CHANNELS", 32])
    torch.save({"model": build_model(wide).state_dict()}, tmp_path / "wide.pth")
    model = build_model(load_config(student))
    method = model.methods["ReviewKD"]
    assert model.levels == ("p2", "p4")
    assert method.distiller.path.levels[0].reduce[0].out_channels == 32
    assert method.distiller.teacher_channels == (32, 32)
    assert isinstance(method.distiller.path.levels[0].reduce[1], torch.nn.GroupNorm)
    assert "loss_reviewkd" in step(model.train(), tiny.batch())[0]


def test_fusion_and_pool_sizes_leave_parts_of_the_method_out(tmp_path):
    _, model = make(tmp_path, REVIEWKD={"FUSION": "sum", "POOL_SIZES": []})
    distiller = model.methods["ReviewKD"].distiller
    assert distiller.pool_sizes == ()
    assert [level.has_residual for level in distiller.path.levels] == [True] * 4 + [False]
    assert all(level.gate is None for level in distiller.path.levels)
    assert step(model.train(), tiny.batch())[0]["loss_reviewkd"] > 0


@pytest.mark.parametrize(
    ("distill", "words"),
    [
        (
            {"METHODS": ["Review"]},
            "METHODS must name known methods; got 'Review'; the nearest is ReviewKD; known: .*DKD",
        ),
        (
            {"REVIEWKD": {"IN_FEATURES": ["p2", "p7"]}},
            "names 'p7', which the student does not output; it outputs p2, p3, p4, p5, p6",
        ),
        ({"REVIEWKD": {"IN_FEATURES": ["p2", "p2"]}}, "each level once; got p2, p2"),
        ({"REVIEWKD": {"NORM": "LN"}}, "NORM must be BN, SyncBN or GN; got LN"),
        ({"REVIEWKD": {"FUSION": "gates"}}, "FUSION must be attention, sum or none; got gates"),
        ({"REVIEWKD": {"POOL_SIZES": [4, 0]}}, r"POOL_SIZES must be positive; got \(4, 0\)"),
        (
            {"REVIEWKD": {"MID_CHANNELS": -1}},
            "REVIEWKD.MID_CHANNELS must not be negative; got -1",
        ),
        ({"REVIEWKD": {"WARMUP_ITERS": -5}}, "REVIEWKD.WARMUP_ITERS must not be negative; got -5"),
        ({"REVIEWKD": {"DECAY_ITERS": -5}}, "REVIEWKD.DECAY_ITERS must not be negative; got -5"),
        (
            {"REVIEWKD": {"WARMUP_ITERS": 9, "DECAY_ITERS": 9}},
            "REVIEWKD.DECAY_ITERS must be more than WARMUP_ITERS, 9, or 0; got 9",
        ),
        (
            {"REVIEWKD": {"NORM": "GN"}},
            r"NORM must be BN or SyncBN .* \[12, 24, 24, 24, 24, 24\].* multiples of 32; got GN",
        ),
        (
            {"STUDENT_META_ARCHITECTURE": "DistilledDetector"},
            "must name the student's own detector; got DistilledDetector",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, distill, words):
    with pytest.raises(ValueError, match=words):
        make(tmp_path, **distill)


def test_a_level_that_only_the_student_has_is_refused(tmp_path):
    distill = {"REVIEWKD": {"IN_FEATURES": ["p7"]}}
    with pytest.raises(ValueError, match=r"names 'p7', which the teacher .* p2, p3, p4, p5, p6"):
        make(tmp_path, tiny.R_CNN, tiny.RETINANET, **distill)


def test_a_teacher_without_a_common_level_is_refused(tmp_path):
    single = {"BACKBONE": {"NAME": "build_resnet_backbone"}, "RESNETS": {"OUT_FEATURES": ["res4"]}}
    tiny.save_teacher(tmp_path)
    tree = tiny.yaml.safe_load((tmp_path / "teacher.yaml").read_text())
    tiny.write(tmp_path / "teacher.yaml", tiny.merged(tree, {"MODEL": single}))
    tree["MODEL"] = tiny.merged(tree["MODEL"], single)
    config = tiny.save_student(tmp_path)
    renamed = torch.load(tmp_path / "teacher.pth", weights_only=True)["model"]
    renamed = {k.replace("backbone.bottom_up", "backbone"): v for k, v in renamed.items()}
    torch.save({"model": renamed}, tmp_path / "teacher.pth")
    with pytest.raises(
        ValueError, match=r"common; .* p2 \(stride 4, 8 channels\), .* teacher res4 \("
    ):
        build_model(load_config(config))


def test_a_step_on_images_without_objects(tmp_path):
    _, model = make(tmp_path)
    inputs = tiny.batch()
    for x in inputs:
        x["instances"] = x["instances"][torch.zeros(2, dtype=torch.bool)]
    losses, _ = step(model.train(), inputs)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_reviewkd"] > 0


def test_the_loss_is_float32_under_autocast(tmp_path):
    _, model = make(tmp_path)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, _ = step(model.train(), tiny.batch())
    assert losses["loss_reviewkd"].dtype == torch.float32
    assert losses["loss_reviewkd"].isfinite()


def test_every_parameter_takes_part_in_a_distributed_step(tmp_path):
    _, model = make(tmp_path)
    address = f"file://{tmp_path / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model.train())
        for _ in range(2):  # a parameter without gradient makes the second step fail
            losses, _ = step(wrapped, tiny.batch())
            sum(losses.values()).backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def wrapped_around(student, model):
    """A model with the same teacher and method around another student."""
    methods = {"ReviewKD": {"mid_channels": 12}}
    return DistilledDetector(student=student, teacher=model.teacher, methods=methods)


class KeywordCalling(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs):
        self.backbone(x=torch.stack([x["image"] for x in inputs]).float())
        return {}


def test_a_backbone_may_be_called_with_a_keyword(tmp_path):
    _, model = make(tmp_path)
    keyword = wrapped_around(KeywordCalling(model.student.backbone), model)
    losses, _ = step(keyword.train(), tiny.batch(sizes=[(64, 96), (64, 96)]))
    assert list(losses) == ["loss_reviewkd"]


class TwiceCalling(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs):
        for _ in range(2):
            self.backbone(inputs[0]["image"][None].float())
        return {}


def test_a_backbone_called_twice_is_an_error(tmp_path):
    _, model = make(tmp_path)
    twice = wrapped_around(TwiceCalling(model.student.backbone), model)
    with pytest.raises(RuntimeError, match="once per training step; got 2 calls"):
        step(twice, tiny.batch())


def test_methods_need_a_teacher_and_a_backbone(tmp_path):
    _, model = make(tmp_path)
    with pytest.raises(ValueError, match="teacher must be given for ReviewKD; got None"):
        DistilledDetector(student=model.student, methods={"ReviewKD": {}})
    with pytest.raises(ValueError, match="module named 'backbone'; got Linear"):
        wrapped_around(torch.nn.Linear(1, 1), model)


def test_a_pass_without_gradients_needs_no_storage_and_leaves_no_trace(tmp_path, caplog):
    _, model = make(tmp_path, REVIEWKD={"TEACHER_SCALE": "rms", "MID_CHANNELS": 12})
    model.train()
    before = copy.deepcopy(model.methods.state_dict())
    caplog.clear()
    with torch.no_grad():
        probed = model(tiny.batch())
        with EventStorage(0) as storage:  # as precise batch statistics have one
            model(tiny.batch())
    assert probed["loss_reviewkd"].isfinite()
    assert storage.latest() == {}
    assert not caplog.records
    assert all(torch.equal(value, before[name]) for name, value in model.methods.named_buffers())
    model.weighted["ReviewKD"] = model.weighted["ReviewKD"]._replace(warmup_steps=4)
    step(model, tiny.batch(), iteration=0)
    step(model, tiny.batch(), iteration=2)  # the warm-up is half done, and stays so
    assert int(model.methods["ReviewKD"].teacher_scale.measured) == 2
    with torch.no_grad():
        half = model(tiny.batch())["loss_reviewkd"]
        model.step = 4
        assert model(tiny.batch())["loss_reviewkd"] == pytest.approx(2 * half.item(), rel=1e-4)
