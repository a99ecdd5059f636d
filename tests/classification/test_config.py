import re
from pathlib import Path

import pytest

from classification.config import get_config, load_config
from reviewkd_det.core import registered_methods

PACKAGE = Path(__file__).resolve().parents[2] / "classification"
TEACHER = ["TEACHER.NAME", "resnet20"]


def leaves(cfg, prefix=""):
    for key, value in cfg.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def load(tmp_path, *opts, text="{}"):
    (tmp_path / "run.yaml").write_text(text)
    return load_config(tmp_path / "run.yaml", opts)


# What the settings of a method do is a test of that method.
OF_METHODS = tuple(f"DISTILL.{name.upper()}." for name in registered_methods())
KEYS = [key for key in leaves(get_config()) if not key.startswith((*OF_METHODS, "MODULES"))]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_read_somewhere(key):
    others = [path for path in PACKAGE.rglob("*.py") if path.name != "config.py"]
    section, _, name = key.rpartition(".")
    # `cfg.DATA.NAME`, or `solver.EPOCHS` after `solver = cfg.SOLVER`.
    last = section.rpartition(".")[2]
    pattern = rf"(\b{last}|\b{last.lower()}|\bsettings|\bcfg|\])\.{name}\b"
    assert any(re.search(pattern, path.read_text(encoding="utf-8")) for path in others)


def test_an_empty_file_gives_the_defaults_frozen(tmp_path):
    cfg = load(tmp_path)
    assert cfg == get_config()
    with pytest.raises(AttributeError, match="immutable"):
        cfg.SEED = 3


def test_options_go_over_the_file_and_the_file_over_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("SOLVER: {EPOCHS: 3, LR: 0.3, BATCH_SIZE: 3}\n")
    text = "_BASE_: base.yaml\nSOLVER: {EPOCHS: 4, LR: 0.4}\n"
    solver = load(tmp_path, "SOLVER.EPOCHS", "5", text=text).SOLVER
    assert (solver.EPOCHS, solver.LR, solver.BATCH_SIZE) == (5, 0.4, 3)


def test_lists_of_yaml_and_tuples_of_the_command_line_are_one(tmp_path):
    text = "SOLVER: {MILESTONES: [3, 5]}\nDISTILL: {METHODS: [KD]}\nTEACHER: {NAME: resnet20}\n"
    options = ["SOLVER.MILESTONES", "(3, 5)", "DISTILL.METHODS", "('KD',)", *TEACHER]
    assert load(tmp_path, text=text) == load(tmp_path, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["DISTILL.METHODS", "('KD', 'ATT')", *TEACHER],
            "DISTILL.METHODS must name known methods; got 'ATT'; the nearest is AT; known: "
            f"{', '.join(registered_methods())}",
        ),
        (
            ["DISTILL.METHODS", "('reviewkd',)", *TEACHER],
            "DISTILL.METHODS must name known methods; got 'reviewkd'; the nearest is ReviewKD; "
            f"known: {', '.join(registered_methods())}",
        ),
        (
            ["DISTILL.STUDENT_ACTIVATION", "none"],
            "DISTILL.STUDENT_ACTIVATION must be of before, after; got 'none'",
        ),
        (
            ["DISTILL.TEACHER_ACTIVATION", "After"],
            "DISTILL.TEACHER_ACTIVATION must be of before, after; got 'After'",
        ),
        (["SOLVER.SCHEDULE", "step"], "SOLVER.SCHEDULE must be of multistep, cosine; got 'step'"),
        (["SOLVER.PRECISION", "fp8"], "SOLVER.PRECISION must be of no, bf16, fp16; got 'fp8'"),
        *(
            ([key, value], f"{key} must be positive; got {value}")
            for key in (
                "SOLVER.EPOCHS", "SOLVER.BATCH_SIZE", "SOLVER.ACCUMULATION_STEPS",
                "TEST.BATCH_SIZE", "TEST.PERIOD", "INPUT.SIZE", "SOLVER.STATES_TO_KEEP",
            )
            for value in ("0", "-2")
        ),
        *(
            ([key, value], f"{key} must be one number for red, green and blue; got {value}")
            for key in ("INPUT.MEAN", "INPUT.STD", "TEACHER.MEAN", "TEACHER.STD")
            for value in ("(0.5,)", "(0.5, 0.5, 0.5, 0.5)", "(0.5, 0.5, 'a')")
        ),
        *(
            ([key, value], f"{key} must be one number for red, green and blue; got {value}")
            for key in ("INPUT.STD", "TEACHER.STD")
            for value in ("(0.5, 0.0, 0.5)", "(-1, 1, 1)")
        ),
        *(
            ([key, "-0.5"], f"{key} must not be negative; got -0.5")
            for key in ("INPUT.MIXUP", "INPUT.CUTMIX")
        ),
        *(
            ([key, "1.5"], f"{key} must be from 0 to 1; got 1.5")
            for key in ("INPUT.RANDOM_ERASING", "SOLVER.LABEL_SMOOTHING")
        ),
        (["SOLVER.EMA_DECAY", "1.0"],
         "SOLVER.EMA_DECAY must be at least 0 and less than 1; got 1.0"),
        (["SOLVER.OPTIMIZER", "Adam"], "SOLVER.OPTIMIZER must be of SGD, AdamW; got 'Adam'"),
        (["TEST.PATIENCE", "-1"], "TEST.PATIENCE must not be negative; got -1"),
        (["DISTILL.KD.TEMPERATURE", "0.0"], "DISTILL.KD.TEMPERATURE must be positive; got 0.0"),
        (["SOLVER.LR", "-0.1"], "SOLVER.LR must not be negative; got -0.1"),
        (
            ["SOLVER.CHECKPOINT_PERIOD", "-1"],
            "SOLVER.CHECKPOINT_PERIOD must not be negative; got -1",
        ),
        (
            ["DISTILL.DKD.WARMUP_EPOCHS", "-1.0"],
            "DISTILL.DKD.WARMUP_EPOCHS must not be negative; got -1.0",
        ),
        (
            ["SOLVER.COMPILE", "inductor"],
            "SOLVER.COMPILE must be of none, default, reduce-overhead, max-autotune, "
            "max-autotune-no-cudagraphs; got 'inductor'",
        ),
        (
            ["SOLVER.COMPILE", "max-autotune", "SOLVER.ACCUMULATION_STEPS", "2"],
            "SOLVER.ACCUMULATION_STEPS must be 1 with the CUDA graphs of SOLVER.COMPILE "
            "max-autotune, which overwrite gradients; got 2",
        ),
        (["SOLVER.MILESTONES", "('a',)"], "SOLVER.MILESTONES must be epochs; got ('a',)"),
        (["INPUT.MEAN", "()"], "INPUT.MEAN must be one number for red, green and blue; got ()"),
        (
            ["DISTILL.METHODS", "('ReviewKD', 'KD')"],
            "TEACHER.NAME must name the teacher of DISTILL.METHODS ('ReviewKD', 'KD'); got ''; "
            'to train without one set DISTILL.METHODS "()"',
        ),
    ],
)  # fmt: skip
def test_bad_values_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load(tmp_path, *options)


def test_a_dark_mean_and_a_teacher_without_methods_are_no_errors(tmp_path):
    assert load(tmp_path, "INPUT.MEAN", "(0, -1, 0.5)").INPUT.MEAN == (0, -1, 0.5)
    assert load(tmp_path, *TEACHER).DISTILL.METHODS == ()


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("SOLVER: {EPOCH: 3}", "SOLVER.EPOCH", "SOLVER.EPOCHS"),
        ("DISTILL: {REVIEWKD: {LOSS_WIEGHT: 1.0}}", "DISTILL.REVIEWKD.LOSS_WIEGHT",
         "DISTILL.REVIEWKD.LOSS_WEIGHT"),
        ("SOLVR: {}", "SOLVR", "SOLVER"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_the_nearest(tmp_path, text, key, nearest):
    with pytest.raises(KeyError, match=rf"got {key} in .*run.yaml; the nearest is {nearest}'"):
        load(tmp_path, text=text)
    if "." in key:
        with pytest.raises(KeyError, match=rf"got {key} in the command line; .* is {nearest}'"):
            load(tmp_path, key, "3")


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        (
            ["SOLVER.EPOCHS", "2.5"],
            "{}",
            r"got the command line: .*240 vs. 2.5.* key: SOLVER.EPOCHS",
        ),
        (["DISTILL.METHODS", "KD"], "{}", r"got the command line: .*\(\) vs. KD.* DISTILL.METHODS"),
        ([], "INPUT: {SIZE: small}", "got .*run.yaml: .*32 vs. small.* key: INPUT.SIZE"),
        ([], "SOLVER: 3", "config must have the known types; got .*run.yaml"),
        (["SOLVER.EPOCHS"], "{}", "KEY VALUE pairs; got SOLVER.EPOCHS in the command line"),
        ([], "SEED: !!python/object/apply:os.getcwd []", "must be plain YAML; .*python/object"),
        ([], "- SEED", r"must be a YAML mapping; got '.*run.yaml': \['SEED'\]"),
    ],
)
def test_a_file_or_option_of_another_kind_is_refused(tmp_path, options, text, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, *options, text=text)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config file must exist; got '.*none.yaml'"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"base.yaml', which .*run.yaml names as _BASE_"):
        load(tmp_path, text="_BASE_: base.yaml")
