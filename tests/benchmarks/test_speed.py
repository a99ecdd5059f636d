"""The benchmark: what it measures, on a tiny recipe; not how fast anything is."""

import json
import runpy
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import speed as package
from benchmarks.speed import Settings, benchmark, comparison_table
from benchmarks.speed.measure import extra_memory, interleaved, resident_memory
from benchmarks.speed.models import build_models, name_levels, synthetic_batch
from benchmarks.speed.parts import parts
from tests.d2 import tiny

TURN = 0.06  # seconds, longer than `measure.TURN`
SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "benchmark.py"
SECONDS = [
    "plain_step", "teacher_backbone", "teacher", "distilled_step", "textbook_step",
    "distillation", "textbook_distillation", "hcl", "textbook_hcl", "floor",
]  # fmt: skip
MEMORY = ["plain_peak_mb", "distilled_peak_mb", "textbook_peak_mb"]
EXTRA_MEMORY = [
    f"{name}_extra_mb" for name in ("distillation", "textbook_distillation", "hcl", "textbook_hcl")
]
RATIOS = ["distilled_to_floor", "distilled_to_textbook", "extra_memory_ratio", "hcl_speedup"]
RATES = [f"{name}_images_per_s" for name in ("plain", "distilled", "textbook")]


def recipe(folder, model=tiny.R_CNN, distill=None, **extra):
    """A student's config beside its teacher's, which has no weights file."""
    tree = tiny.detector(model, width=8, pyramid=24)
    tree["MODEL"]["WEIGHTS"] = "nowhere.pth"
    tiny.write(folder / "teacher.yaml", tree)
    return str(tiny.save_student(folder, model, distill, **extra))


def call(monkeypatch, *arguments):
    """Run the script; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    config = recipe(tmp_path_factory.mktemp("recipe"))
    return benchmark(Settings(config, size=(64, 96), repeats=2, device="cpu"))


def test_every_number_is_there_and_positive(results):
    names = [*SECONDS, *MEMORY, *EXTRA_MEMORY, *RATIOS, *RATES]
    assert all(results[name] > 0 for name in names), results
    for name in SECONDS[:-1]:
        least, most = results["spread"][name]
        assert least <= results[name] <= most
    assert results["floor"] == results["plain_step"] + results["teacher_backbone"]
    assert results["plain_images_per_s"] == pytest.approx(2 / results["plain_step"])
    assert results["hcl_speedup"] == pytest.approx(results["textbook_hcl"] / results["hcl"])
    json.dumps(results)


def test_ours_and_the_textbooks_loss_are_equal(results):
    assert results["loss"] > 0
    assert results["loss_relative_difference"] < 1e-5


def test_ours_and_the_textbook_train_equally_many_parameters(results):
    trained = results["trained_parameters"]
    assert trained["distilled_step"] == trained["textbook_step"] > trained["plain_step"]


def test_distillation_needs_more_memory_than_the_plain_step(results):
    assert min(results["distilled_peak_mb"], results["textbook_peak_mb"]) > results["plain_peak_mb"]


def test_the_settings_are_told(results):
    settings = results["settings"]
    assert (settings["size"], settings["batch"], settings["repeats"]) == ((64, 96), 2, 2)
    assert settings["config"].endswith("student.yaml")
    assert settings["threads"] == torch.get_num_threads()
    assert settings["torch"] == torch.__version__
    assert settings["device"] == "cpu"
    assert settings["device_name"]


def test_the_table_shows_the_medians(results):
    text = comparison_table(results, markdown=True)
    rows = {row.split("|")[1].strip(): row for row in text.splitlines() if row.startswith("| ")}
    assert f"{1000 * results['textbook_step']:.1f}" in rows["distilled step, textbook"]
    assert f"{results['plain_peak_mb']:.1f}" in rows["student alone"]
    assert "64 x 96" in text
    assert "|" not in comparison_table(results)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (tiny.RETINANET, {}),
        (tiny.merged(tiny.R_CNN, {"MASK_ON": True}), {}),
        (tiny.R_CNN, {"INPUT": {"FORMAT": "RGB"}}),
    ],
    ids=["retinanet", "mask", "another channel order"],
)
def test_the_textbook_agrees_on_other_recipes(tmp_path, model, options):
    from benchmarks.speed.compare import _losses

    distill = {
        "METHODS": ["ReviewKD", "DKD"],
        "REVIEWKD": {"WARMUP_ITERS": 10, "TEACHER_SCALE": "rms", "LOSS_WEIGHT": 3.0},
    }
    cfg = package.checked_config(Settings(recipe(tmp_path, model, distill, **options)))
    cfg.MODEL.DEVICE = "cpu"
    batch = synthetic_batch((96, 160), 2)
    models = build_models(cfg, batch)
    losses = _losses(models, batch)
    assert losses["loss"] > 0
    assert losses["loss_relative_difference"] < 1e-5
    assert list(models.ours.methods) == ["ReviewKD"]


def test_the_students_share_weights_but_no_memory(tmp_path):
    batch = synthetic_batch((64, 96), 2)
    models = build_models(package.checked_config(Settings(recipe(tmp_path), device="cpu")), batch)
    students = [models.plain, models.ours.student, models.textbook.student]
    states = [student.state_dict() for student in students]
    for name, tensor in states[0].items():
        assert all(torch.equal(tensor, state[name]) for state in states[1:])
        assert len({state[name].data_ptr() for state in states}) == 3
    before = models.plain.backbone.fpn_lateral2.weight.clone()
    teacher = [p.clone() for p in models.textbook.teacher.parameters()]
    calls = parts(models, batch, "float32")
    for call_ in calls.values():
        call_()
    for student in students:
        assert not torch.equal(before, student.backbone.fpn_lateral2.weight)
        assert all(p.grad is None for p in student.parameters())
    assert all(map(torch.equal, teacher, models.textbook.teacher.parameters()))
    assert not any(module.training for module in models.textbook.teacher.modules())


@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
def test_a_precision_is_measured(tmp_path, monkeypatch, precision):
    products = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", products.append)
    settings = Settings(
        recipe(tmp_path, tiny.RETINANET),
        size=(64, 96),
        repeats=1,
        precision=precision,
        device="cpu",
    )
    results = benchmark(settings)
    assert results["distilled_step"] > 0
    assert results["settings"]["precision"] == precision
    assert products == (["high"] if precision == "tf32" else [])


def test_parts_take_turns_and_each_repeat_begins_with_another():
    calls = []

    def part(name):
        calls.append(name)
        time.sleep(TURN)  # so a turn is one call that counts, and one before that does not

    seconds = interleaved({name: partial(part, name) for name in "abc"}, repeats=4)
    assert "".join(calls[::2]) == "".join(calls[1::2]) == "abc" + "bca" + "cab" + "abc"
    assert {name: len(x.times) for name, x in seconds.items()} == {"a": 4, "b": 4, "c": 4}
    assert all(x.median == pytest.approx(TURN, rel=0.5) for x in seconds.values())


def test_the_levels_are_named_as_the_recipe_names_them(tmp_path):
    distill = {"REVIEWKD": {"IN_FEATURES": ["p3", "p5"]}}
    settings = Settings(recipe(tmp_path, tiny.RETINANET, distill), device="cpu")
    batch = synthetic_batch((64, 96), 2)
    models = build_models(package.checked_config(settings), batch)
    assert name_levels(models.ours, batch) == ["p3", "p5"]
    assert models.textbook.names == ("p3", "p5")


def test_a_recipe_whose_method_fuses_no_levels_is_refused(tmp_path):
    settings = Settings(recipe(tmp_path, distill={"METHODS": ["DKD"]}), device="cpu")
    with pytest.raises(ValueError, match=r"METHODS must name a method that fuses levels.* got DKD"):
        build_models(package.checked_config(settings), synthetic_batch((64, 96), 2))


def test_extra_memory_is_the_most_held_at_once():
    def peak_of_48_mb():
        first, second = torch.ones(8, 2**20), torch.ones(4, 2**20)  # 32 MB and 16 MB
        del first
        return torch.cat([second, second[:2]])  # 16 MB and 24 MB

    assert extra_memory(peak_of_48_mb) == pytest.approx(48, rel=0.2)
    assert extra_memory(lambda: None) == 0


def test_extra_memory_does_not_count_what_was_there():
    before = [torch.ones(8, 2**20)]

    def replace():
        before.clear()
        before.append(torch.ones(4, 2**20))

    assert extra_memory(replace) == pytest.approx(16, rel=0.2)


def test_resident_memory_is_parameters_buffers_and_momentum():
    model = nn.Sequential(nn.Linear(1024, 512, bias=False), nn.BatchNorm1d(512, affine=False))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    buffers = (2 * 512 * 4 + 8) / 2**20
    assert resident_memory([model], optimizer) == pytest.approx(2 + buffers)
    model(torch.ones(2, 1024)).sum().backward()
    optimizer.step()
    assert resident_memory([model], optimizer) == pytest.approx(4 + buffers)
    assert resident_memory([model, model]) == pytest.approx(2 + buffers)


def test_the_script_prints_the_table_and_writes_the_numbers(tmp_path, monkeypatch, capsys):
    numbers = tmp_path / "b.json"
    arguments = [
        "--config-file", recipe(tmp_path, tiny.RETINANET), "--size", 64, 96, "--repeats", 1,
        "--device", "cpu", "--json", numbers, "MODEL.DISTILL.REVIEWKD.MID_CHANNELS", 8,
    ]  # fmt: skip
    assert call(monkeypatch, *arguments) == 0
    results = json.loads(numbers.read_text())
    assert {*SECONDS, *MEMORY, *EXTRA_MEMORY, *RATIOS, *RATES} <= set(results)
    assert results["settings"]["memory"] == "kept"
    assert "student alone" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--repeats", 0], "--repeats must be at least 1; got 0"),
        (["--batch", -2], "--batch must be at least 1; got -2"),
        (["--threads", 0], "--threads must be at least 1; got 0"),
        (["--size", 16, 96], "--size must be at least 32 32; got 16 96"),
        (["--precision", "int8"], "must be float32, float16, bfloat16, tf32; got int8"),
        (["--device", "tpu"], "--device must be auto, cpu or cuda; got tpu"),
        (["--memory", "own"], "--memory must be kept or stock; got own"),
        (["--json", "/no/such/b.json"], "--json must be in a folder that exists; got '/no/such"),
        (["--config-file", "no.yaml"], "config file must exist; got 'no.yaml'"),
        (["MODEL.DEPHT", 3], "config key must be known; got MODEL.DEPHT"),
        (
            ["MODEL.META_ARCHITECTURE", "RetinaNet"],
            "MODEL.META_ARCHITECTURE must be DistilledDetector, as in a distillation recipe; "
            "got RetinaNet",
        ),
    ],
)
def test_bad_input_ends_in_one_sentence(monkeypatch, capsys, arguments, sentence):
    assert call(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("benchmark.py: error: ")
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_must_be_there(monkeypatch, capsys):
    assert call(monkeypatch, "--device", "cuda") == 1
    assert "--device must be cpu where PyTorch finds no GPU; got cuda" in capsys.readouterr().err


def test_the_cost_of_methods_is_measured_side_by_side(tmp_path, monkeypatch, capsys):
    config, file = recipe(tmp_path), tmp_path / "costs.json"
    words = ["--config-file", config, "--size", 64, "96", "--repeats", 1, "--device", "cpu"]
    both = ["--method", "PKD", "--method", "DKD", "--method", "RPNLogits"]
    assert call(monkeypatch, *words, *both, "--json", file, "--markdown") == 0
    rows = json.loads(file.read_text())
    assert [row["method"] for row in rows] == ["PKD", "DKD", "RPNLogits"]
    assert all(row["step / plain"] > row["step / floor"] > 0 for row in rows)
    assert rows[0]["parameters"] > 0 == rows[1]["parameters"]  # one fits the channels
    assert "| `PKD`" in capsys.readouterr().out
    assert call(monkeypatch, *words, "--method", "CrossKD") == 1
    assert "--method must be of AT, BoxRegression, " in capsys.readouterr().err


def test_all_methods_of_a_student_are_those_that_it_serves(tmp_path):
    from benchmarks.speed.methods import methods_for
    from reviewkd_det.d2 import load_config

    two = methods_for(load_config(recipe(tmp_path)))
    one = methods_for(load_config(recipe(tmp_path, tiny.RETINANET)))
    assert {"ReviewKD", "PKD", "DKD", "RKD", "BoxRegression"} <= set(two)
    assert {"ReviewKD", "PKD", "DKD", "CrossKD"} <= set(one)
    assert not {"CrossKD", "MaskLogits", "CRD"} & set(two)
    assert not {"RKD", "MLKD", "RPNLogits"} & set(one)
