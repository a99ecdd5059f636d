"""Command lines, random and mutated: each is read, or refused with a sentence and code 1 or 2."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st

from classification import evaluate, train
from classification.config import load_config as load_classification
from reviewkd_det.common import check_config_file, parse_run_args
from reviewkd_det.d2.runs.lazy_config import read_lazy_config
from reviewkd_det.d2.runs.yaml_config import read_config
from tests.bulk.mutations import names
from tests.bulk.outcomes import check_refusal, counts, in_bulk, outcome
from tests.bulk.test_bulk_yaml import keys_of

ROOT = Path(__file__).resolve().parents[2]
PYTHON_CONFIG = """
model = dict(a=1)
optimizer = dict(lr=0.1)
lr_multiplier = dict(b=[1, 2])
dataloader = dict(train=1)
train = dict(device="cpu", amp=dict(enabled=False), output_dir="output", init_checkpoint="")
"""


def read_detection():
    read_config(parse_run_args())


def read_python():
    read_lazy_config(parse_run_args(python_config=True))


def read_classification(parse):
    args = parse()
    check_config_file(args.config_file)
    load_classification(args.config_file, args.opts)


# What each script does with its arguments before it builds anything, and their words.
RUN_FLAGS = ["--resume", "--overwrite", "--eval-only", "--num-gpus", "--num-machines"]
RUN_FLAGS += ["--machine-rank", "--dist-url", "--help", "--over", "--nonsense", "-x", "--"]
SCRIPTS = {
    "train_net": (read_detection, "own.yaml", RUN_FLAGS, "detection"),
    "lazyconfig_train_net": (read_python, "own.py", RUN_FLAGS, "detection"),
    "classification train": (
        lambda: read_classification(train.parse_args),
        "own.yaml",
        ["--resume", "--overwrite", "--help", "--res", "--nonsense", "--"],
        "classification",
    ),
    "classification evaluate": (
        lambda: read_classification(evaluate.parse_args),
        "own.yaml",
        ["--weights", "--json", "--help", "--nonsense", "--"],
        "classification",
    ),
}
LAZY_KEYS = ["train.device", "train.amp.enabled", "optimizer.lr", "model", "train.output_dir", "no"]
LAZY_KEYS += ["train", "train.amp", "~train.device", "+train.new"]
# What a shell can hand over: no NUL, and bytes that are no UTF-8 as surrogates.
typed = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=15)
typed |= st.sampled_from(["", "0", "-1", "1e3", "nan", "None", "True", "()", "[]", "{}", "('a',)"])
typed |= st.sampled_from(["[['x', 1]]", "\udc80", "'", "(", "1" * 5000, "-" * 300 + "1", "1j", "~"])


def words_of(kind):
    """Strategies for one argument: flags, files, keys, values, anything."""
    _, config, flags, package = SCRIPTS[kind]
    keys = keys_of(package) | st.builds("{}.{}".format, keys_of(package), names)
    lazy = st.builds("{}={}".format, st.sampled_from(LAZY_KEYS), typed)
    pair = st.tuples(lazy) if config.endswith(".py") else st.tuples(keys | typed, typed)
    files = st.sampled_from([config, "none.yaml", ".", "", "other.txt"])
    begin = st.tuples(st.just("--config-file"), st.just(config) | files)
    flag = st.tuples(st.sampled_from(flags)) | st.tuples(st.sampled_from(flags), typed)
    return begin, flag, pair


@st.composite
def command_lines(draw, kind):
    begin, flag, pair = words_of(kind)
    parts = [draw(begin)] if draw(st.integers(0, 9)) else []
    parts += draw(st.lists(flag, max_size=2))
    parts += draw(st.lists(pair, max_size=3))
    if draw(st.booleans()):
        parts = draw(st.permutations(parts))
    words = [word for part in parts for word in part]
    if words and draw(st.integers(0, 4)) == 0:
        del words[draw(st.integers(0, len(words) - 1))]
    return words


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("OUTPUT_DIR: output\n")
    (tmp_path / "own.py").write_text(PYTHON_CONFIG)
    (tmp_path / "other.txt").write_text("hello")
    return tmp_path


@pytest.mark.parametrize("kind", SCRIPTS)
@counts(full=500, fast=50)
def test_a_command_line_is_read_or_refused(folder, kind, count, monkeypatch):
    def judge(words):
        monkeypatch.setattr(sys, "argv", ["script.py", *words])
        with contextlib.redirect_stdout(io.StringIO()):  # of --help
            return outcome(SCRIPTS[kind][0], folder)

    outcomes = in_bulk(count, command_lines(kind), judge)
    assert outcomes["refused"]
    assert outcomes["accepted"]


@pytest.mark.parametrize(
    ("path", "words", "code"),
    [
        ("tools/train_net.py", ["--config-file", "v2.yaml", "SEED", "x"], 1),
        ("tools/train_net.py", ["--num-gpus", "many"], 2),
        ("classification/train.py", ["--config-file", "null.yaml"], 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("tools/train_net.py", ["--config-file", "v2.yaml", "MODEL", "{}"], 1),
                ("tools/train_net.py", ["--config-file", "empty.yaml"], 1),
                ("tools/export_student.py", ["--config-file", "null2.yaml", "--output", "o"], 1),
                (
                    "classification/evaluate.py",
                    ["--config-file", "own.yaml", "--weights", "other.txt"],
                    1,
                ),
                ("classification/evaluate.py", [], 2),
            )
        ),
    ],
)
def test_a_real_process_says_one_sentence(folder, path, words, code, monkeypatch):
    (folder / "empty.yaml").write_text("# nothing\n")
    (folder / "null.yaml").write_text("OUTPUT_DIR: null\n")
    (folder / "v2.yaml").write_text("VERSION: 2\n")  # without it, Detectron2 says what it assumes
    (folder / "null2.yaml").write_text("VERSION: 2\nOUTPUT_DIR: null\n")
    before = sorted(folder.rglob("*"))
    command = [sys.executable, str(ROOT / path), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.stdout == ""
    monkeypatch.setattr(sys, "argv", [path])
    check_refusal(done.returncode, done.stderr)
    assert done.returncode == code
    assert sorted(folder.rglob("*")) == before
