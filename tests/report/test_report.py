"""Reports: what a run's folder says, which runs are one row, and what the page shows."""

import json
import math
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from reviewkd_det.report import read_run, write_page
from reviewkd_det.report.figures import (
    draw_effects,
    draw_levels,
    draw_losses,
    draw_scores,
    draw_summary,
)
from reviewkd_det.report.groups import group_runs, name_teacher, tidy_values
from reviewkd_det.report.tables import (
    class_table,
    difference_tables,
    name_scores,
    result_table,
    speed_table,
)
from tests.classification.running import train as train_classifier
from tests.d2.test_scripts import call, prepare

COMMAND = "python tools/train_net.py --config-file 'my student.yaml' --num-gpus 2 SEED 1"


def config(folder, *, seed=1, iterations=40, methods=(), weights="", batch=4, **more):
    teacher = {"WEIGHTS": str(weights), "CONFIG_FILE": "teacher.yaml"}
    distill = {"METHODS": list(methods), "TEACHER": teacher}
    return {
        "MODEL": {"META_ARCHITECTURE": "DistilledDetector", "DISTILL": distill, "DEPTH": 18},
        "SOLVER": {"MAX_ITER": iterations, "IMS_PER_BATCH": batch},
        "SEED": seed,
        "OUTPUT_DIR": str(folder),
        **more,
    }


def points(average_precision=10.0, *, until=40, levels=()):
    """What Detectron2 writes: losses each 20 iterations, then the last evaluation past the end."""
    lines = []
    for iteration in range(19, until, 20):
        line = {"iteration": iteration, "total_loss": 4.0, "time": 0.2, "data_time": 0.05}
        lines.append(line | {f"loss_reviewkd/{name}": 0.5 for name in levels})
        lines[-1]["eta_seconds"] = 7.0
    scores = {"bbox/AP": average_precision, "bbox/AP50": 20.0, "bbox/AP-cat": 30.0}
    return [*lines, {"iteration": until, "bbox/AP-<dog>": math.nan, **scores}]


def write_run(folder, tree, lines, *, summary=None, command=""):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    (folder / "metrics.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    if command:
        record = {"command": command, "started": "2026-11-21", "versions": {"torch": "2.15.0"}}
        (folder / "run.json").write_text(json.dumps(record))
    return folder


def make(
    folder, average_precision=10.0, *, seconds=50.0, parameters=900, levels=(), command="", **keys
):
    tree, lines = config(folder, **keys), points(average_precision, levels=levels)
    summary = {"train_seconds": seconds, "parameters": parameters}
    return read_run(write_run(folder, tree, lines, summary=summary, command=command))


def make_classifier(folder):
    folder.mkdir()
    tree = {"DISTILL": {"METHODS": ["KD"]}, "TEACHER": {"NAME": "resnet56", "WEIGHTS": ""}}
    tree |= {"SOLVER": {"EPOCHS": 2, "BATCH_SIZE": 8}, "SEED": 0, "OUTPUT_DIR": "elsewhere"}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    lines = [
        {"epoch": e, "loss_ce": 2.0, "images_per_second": 80.0, "top1": 40.0 + e} for e in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return read_run(folder)


def make_pair(tmp_path):
    """A teacher, and plain and distilled students of two seeds."""
    weights = tmp_path / "teacher" / "model_final.pth"
    teacher = make(tmp_path / "teacher", 50.0, parameters=3000)
    students = []
    for seed, score in ((1, 10.0), (2, 14.0)):
        parts = {"seed": seed, "DEPTH": 10}
        students.append(make(tmp_path / f"{seed}" / "plain", score, **parts))
        students.append(make(tmp_path / f"{seed}" / "taught", 2 * score, seconds=75.0, levels="ab",
                             methods=["ReviewKD"], weights=weights, **parts))  # fmt: skip
    return [teacher, *students]


def rows(table):
    return table.cells.to_dict("index")


def shown(make_it, runs):
    """What a function of the groups and of all their values makes of some runs."""
    groups = group_runs(runs)
    return make_it(groups, tidy_values(groups))


def test_steps_are_counted_from_one_and_end_at_the_last(tmp_path):
    run = make(tmp_path / "run", 12.5)
    assert list(run.history) == [20, 40]
    assert run.series("bbox/AP") == {40: 12.5}  # evaluated at Detectron2's iteration 40 of 0 to 39
    assert run.is_finished


def test_of_repeated_iterations_the_last_values_count(tmp_path):
    again = {"iteration": 19, "total_loss": 1.0}
    folder = write_run(tmp_path / "run", config(tmp_path / "run"), [*points(), again])
    run = read_run(folder)
    assert run.series("total_loss") == {20: 1.0, 40: 4.0}
    assert run.series("time") == {20: 0.2, 40: 0.2}


def test_what_could_not_be_measured_is_left_out(tmp_path):
    run = make(tmp_path / "run")
    assert "bbox/AP-<dog>" not in run.last
    assert rows(shown(class_table, [run])) == {"cat": {"run": "30.0"}}


def test_an_interrupted_run_says_so_and_is_no_seed_of_a_whole_one(tmp_path):
    whole = make(tmp_path / "whole")
    lines = points(3.0, until=20)
    cut = read_run(write_run(tmp_path / "cut", config(tmp_path / "cut", seed=2), lines))
    table = rows(shown(result_table, [whole, cut]))
    assert table["whole"]["iterations"] == "40"
    assert table["cut"]["iterations"] == "21 of 40: interrupted"
    assert table["cut"]["AP"] == "3.0"
    assert table["cut"]["train seconds"] == ""
    assert rows(shown(speed_table, [whole, cut]))["cut"]["seconds left"] == "7"


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    run = make(tmp_path / "run")
    with (run.folder / "metrics.json").open("a") as file:
        file.write('{"iteration": 59, "tot')
    assert read_run(run.folder).history == run.history


def test_a_run_without_evaluation_has_no_scores(tmp_path):
    tree = config(tmp_path / "run")
    run = read_run(write_run(tmp_path / "run", tree, points()[:-1]))
    assert not name_scores(tidy_values({"run": [run]}))
    assert shown(draw_scores, [run]) is None
    write_page([run], tmp_path / "page.html", tmp_path / "page.png")
    assert 'id="scores"' not in (tmp_path / "page.html").read_text()


def test_a_run_that_ended_before_its_first_values_has_a_page(tmp_path):
    runs = [read_run(write_run(tmp_path / "run", config(tmp_path / "run"), []))]
    write_page(runs, tmp_path / "page.html", tmp_path / "page.png")
    runs.append(make(tmp_path / "other", methods=["KD"]))
    write_page(runs, tmp_path / "page.html", tmp_path / "page.png")
    assert "0 of 40: interrupted" in (tmp_path / "page.html").read_text()


def test_runs_that_differ_in_their_seed_are_one_row(tmp_path):
    runs = make_pair(tmp_path)
    sizes = {name: len(members) for name, members in group_runs(runs).items()}
    assert sizes == {"teacher": 1, "plain": 2, "taught": 2}
    table = rows(shown(result_table, runs))
    assert table["plain"]["AP"] == "12.0 ± 2.8"  # 10 and 14: the square root of 2 * 2 * 2
    assert table["plain"]["seeds"] == "1, 2"
    assert table["taught"]["taught by"] == "teacher, ReviewKD"
    # Relative to the plain run of its own size, not to the teacher, which is plain too.
    assert [table[name]["relative time"] for name in ("teacher", "plain", "taught")] == [
        "",
        "",
        "1.50",
    ]


def test_students_of_equal_teachers_are_one_row_and_of_others_are_not(tmp_path):
    def student(name, teacher):
        weights = teacher.folder / "model_final.pth"
        return make(tmp_path / name, methods=["ReviewKD"], weights=weights)

    teachers = [make(tmp_path / f"teacher{seed}", seed=seed) for seed in (1, 2)]
    other = make(tmp_path / "other", iterations=60)
    runs = [*teachers, other]
    runs += [student(f"taught_{i}", teacher) for i, teacher in enumerate(runs)]
    groups = group_runs(runs)
    assert [len(members) for members in groups.values()] == [2, 1, 2, 1]
    assert list(groups) == ["teacher", "other", "taught", "taught_2"]
    teachers = [name_teacher(members[0], groups) for members in groups.values()]
    assert teachers == ["", "", "teacher", "other"]


def test_two_groups_of_one_name_are_told_apart_by_their_folders(tmp_path):
    runs = [make(tmp_path / part / "run", iterations=n) for part, n in (("a", 20), ("b", 40))]
    assert list(group_runs(runs)) == ["a/run", "b/run"]
    runs.append(make(tmp_path / "c" / "a" / "run", iterations=60))
    assert list(group_runs(runs)) == [str(runs[0].folder), "b/run", str(runs[2].folder)]


def test_a_folder_given_twice_is_refused(tmp_path):
    run = make(tmp_path / "run")
    with pytest.raises(ValueError, match=r"a run must be given once; got '.*run' twice"):
        group_runs([run, read_run(tmp_path / "run" / ".." / "run")])


def test_only_keys_that_differ_are_listed(tmp_path):
    (table,) = difference_tables(group_runs(make_pair(tmp_path)))
    # DEPTH is of the students alone, and the same in them.
    assert set(rows(table)) == {"MODEL.DISTILL.METHODS", "MODEL.DISTILL.TEACHER.WEIGHTS"}
    assert rows(table)["MODEL.DISTILL.METHODS"]["taught"] == '["ReviewKD"]'
    assert difference_tables(group_runs([make(tmp_path / "run")])) == []


def test_what_a_plain_detector_ignores_is_no_difference(tmp_path):
    runs = []
    for name, methods in (("one", ["ReviewKD"]), ("two", ["DKD"])):
        tree = config(tmp_path / name, methods=methods)
        tree["MODEL"]["META_ARCHITECTURE"] = "GeneralizedRCNN"
        runs.append(read_run(write_run(tmp_path / name, tree, points())))
    assert len(group_runs(runs)) == 1
    assert runs[0].methods == []
    runs.append(make(tmp_path / "three", methods=["ReviewKD"]))
    (table,) = difference_tables(group_runs(runs))
    assert set(rows(table)) == {"MODEL.META_ARCHITECTURE"}


def test_unlabelled_images_are_images_of_a_step(tmp_path):
    more = {"DATASETS": {"UNLABELED": ["rest"]}}
    runs = []
    for methods in ((), ("ReviewKD",)):
        tree = config(tmp_path / f"run{methods}", methods=methods, **more)
        tree["SOLVER"]["UNLABELED_PER_BATCH"] = 4
        runs.append(read_run(write_run(tmp_path / f"run{methods}", tree, points())))
    speeds = [row["images/s"] for row in rows(shown(speed_table, runs)).values()]
    assert speeds == ["20", "40"]  # 4 and 8 images in 0.2 s


def test_the_gpu_memory_is_shown_where_a_run_recorded_it(tmp_path):
    plain = make(tmp_path / "plain", iterations=20)
    summary = {"max_memory_mb": 1200}
    tree = config(tmp_path / "run")
    run = read_run(write_run(tmp_path / "run", tree, points(), summary=summary))
    table = rows(shown(result_table, [plain, run]))
    assert [row["GPU memory, MB"] for row in table.values()] == ["", "1,200"]
    assert "GPU memory, MB" not in rows(shown(result_table, [plain]))["plain"]


def test_the_command_is_the_recorded_one_or_one_with_the_whole_config(tmp_path):
    assert make(tmp_path / "run", command=COMMAND).command == COMMAND
    path = tmp_path / "old" / "config.yaml"
    old = make(tmp_path / "old")
    assert old.command.endswith(f"python tools/train_net.py --config-file {path}")


def test_a_classifier_stands_beside_detectors(tmp_path):
    runs = [make(tmp_path / "detector"), make_classifier(tmp_path / "classifier")]
    table = rows(shown(result_table, runs))
    assert table["classifier"]["iterations / epochs"] == "2"
    assert table["classifier"]["top-1"] == "42.0"
    assert table["classifier"]["AP"] == ""
    assert table["classifier"]["taught by"] == "resnet56, KD"
    assert rows(shown(speed_table, runs))["classifier"]["images/s"] == "80"
    panels = {x.get_title(): x.get_xlabel() for x in shown(draw_losses, runs).axes}
    assert panels == {"total_loss": "iteration", "loss_ce": "epoch"}
    assert [x.get_title() for x in shown(draw_summary, runs).axes] == [
        "AP at the end", "AP over iterations", "total_loss",
    ]  # fmt: skip
    assert "python classification/train.py --config-file " in runs[1].command
    write_page(runs, tmp_path / "page.html", tmp_path / "page.png")


def test_a_python_config_is_read_as_data(tmp_path):
    text = (
        "train: {max_iter: 2, output_dir: out, seed: 5}\n"
        "dataloader: {train: {total_batch_size: 3}}\n"
        "model:\n"
        "  methods: {_target_: builtins.dict, ReviewKD: {mid_channels: 8}}\n"
        "  teacher: {config_file: zoo.yaml, weights: ''}\n"
        "  shape: !!python/object:os.system {channels: !!python/tuple [1, 2]}\n"
    )
    folder = write_run(tmp_path / "run", {}, [{"iteration": 1, "time": 0.5}])
    (folder / "config.yaml").write_text(text)
    run = read_run(folder)
    assert (run.methods, run.teacher, run.batch, run.length) == (["ReviewKD"], "zoo.yaml", 3, 2)
    assert run.config["model.shape.channels"] == [1, 2]
    assert "python tools/lazyconfig_train_net.py " in run.command


def test_several_data_sets_have_a_column_each(tmp_path):
    lines = [{"iteration": 39, "day/bbox/AP": 1.0, "night/bbox/AP": 2.0, "night/bbox/AP-cat": 3.0}]
    run = read_run(write_run(tmp_path / "run", config(tmp_path / "run"), lines))
    scores = name_scores(tidy_values({"run": [run]}))
    assert list(scores.values()) == ["AP on day", "AP on night"]
    assert rows(shown(class_table, [run])) == {"cat, night": {"run": "3.0"}}


def test_the_levels_of_each_distilled_run_have_a_panel(tmp_path):
    figure = shown(draw_levels, make_pair(tmp_path))
    assert [axis.get_title() for axis in figure.axes] == ["taught"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert shown(draw_levels, [make(tmp_path / "run")]) is None


def test_each_share_of_the_gradient_and_each_similarity_has_a_panel(tmp_path):
    run = make(tmp_path / "run")
    assert shown(draw_effects, [run]) is None
    with (tmp_path / "run" / "metrics.json").open("a") as file:
        for step in (0, 100):
            values = {"similarity/p3": 0.5, "gradient_share/dkd": 0.2, "similarity/p2": 0.4}
            file.write(json.dumps({"iteration": step, **values}) + "\n")
    figure = shown(draw_effects, [read_run(tmp_path / "run")])
    titles = ["gradient of dkd in the student's own", "similarity, p2", "similarity, p3"]
    assert [axis.get_title() for axis in figure.axes] == titles
    assert [axis.get_yscale() for axis in figure.axes] == ["log", "linear", "linear"]


def test_a_curve_is_the_mean_of_the_seeds_where_all_have_a_value(tmp_path):
    runs = [make(tmp_path / f"run{seed}", 10.0 * seed, seed=seed) for seed in (1, 2)]
    with (tmp_path / "run2" / "metrics.json").open("a") as file:
        file.write('{"iteration": 5, "bbox/AP": 1.0}\n')
    runs[1] = read_run(tmp_path / "run2")
    curve = shown(draw_scores, runs).axes[1].lines[0]
    assert curve.get_xydata().tolist() == [[40, 15]]


def test_the_curves_of_a_long_run_have_few_points_and_reach_its_end(tmp_path):
    lines = [{"iteration": i, "total_loss": 5.0 + i} for i in range(1500)]
    runs = [
        read_run(write_run(tmp_path / f"{x}", config(tmp_path, seed=x, iterations=1500), lines))
        for x in (1, 2)
    ]
    recorded, smoothed = shown(draw_losses, runs).axes[0].lines[:2]
    assert len(recorded.get_xdata()) == 1500
    assert 100 < len(smoothed.get_xdata()) <= 200
    assert smoothed.get_xydata()[-1].tolist() == [1500, 1504]
    middle = smoothed.get_xydata()[90]
    assert middle[1] == pytest.approx(middle[0] + 4)  # a straight line stays one


def test_the_values_of_all_runs_are_one_table(tmp_path):
    values = tidy_values(group_runs([make(tmp_path / f"run{x}", x, seed=x) for x in (1, 2)]))
    scores = values[values["key"] == "bbox/AP"]
    columns = ["group", "seed", "unit", "step", "value"]
    assert scores[columns].values.tolist() == [
        ["run", "1", "iteration", 40, 1.0],
        ["run", "2", "iteration", 40, 2.0],
    ]
    assert not values["value"].isna().any()


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path):
    write_page(make_pair(tmp_path), tmp_path / "new" / "page.html", tmp_path / "page.png")
    text = (tmp_path / "new" / "page.html").read_text()
    linked = set(re.findall(r'href="#(\w+)"', text))
    assert linked == set(re.findall(r'<section id="(\w+)"', text))
    assert linked == {
        "results", "scores", "losses", "levels", "classes", "speed", "differences", "commands",
    }  # fmt: skip
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "<script" not in text
    assert text.count("<img ") == text.count("<figcaption>") == 4
    assert all(len(alt) > 20 for alt in re.findall(r'alt="([^"]*)"', text))
    with Image.open(tmp_path / "page.png") as picture:
        assert len(picture.convert("RGB").getcolors(2**24)) > 100


def test_what_a_run_names_is_text_on_the_page(tmp_path):
    bad = "<script>alert(1)</script>"
    run = make(tmp_path / "run", command=f"python {bad}")
    run = read_run(run.folder, bad)
    write_page([run], tmp_path / "page.html", tmp_path / "page.png")
    text = (tmp_path / "page.html").read_text()
    assert bad not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 3


def test_no_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a report must have runs; got none"):
        write_page([], tmp_path / "page.html", tmp_path / "page.png")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold config.yaml and .*; got 'no/such'"):
        read_run(Path("no/such"))
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(FileNotFoundError, match=rf"got '{tmp_path}' without metrics.json"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("config.yaml", "[1]", r"config file must be a YAML mapping; got '.*config.yaml': \[1\]"),
        ("config.yaml", "{", r"config file must be YAML; got '.*config.yaml': while"),
        ("metrics.json", "{}\n", r"metrics.json must name the iteration in each line; got \{\}"),
        ("metrics.json", "x\n{}\n", r"metrics.json' must hold JSON; got 'x': Expecting"),
        ("summary.json", "{", r"summary.json' must hold JSON; got '\{': Expecting"),
        ("run.json", "{", r"run.json' must hold JSON; got '\{': Expecting"),
        ("run.json", "[1]", r"run.json' must hold JSON objects; got '\[1\]'"),
        ("config.yaml", "SOLVER: {MAX_ITER: x}", r"SOLVER.MAX_ITER must be a number; got 'x' in"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, text, sentence):
    folder = make(tmp_path / "run").folder
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_run(folder)


def test_a_real_run_is_read_whole(tmp_path, request, monkeypatch):
    student = prepare(tmp_path, request)
    assert call(monkeypatch, "train_net.py", "--config-file", student, "SEED", 4) == 0
    run = read_run(tmp_path / "run")
    assert (run.steps, run.length, run.methods) == (2, 2, ["ReviewKD"])
    levels = [key for key in run.last if key.startswith("loss_reviewkd/")]
    assert sum(run.last[key] for key in levels) == pytest.approx(run.last["loss_reviewkd"])
    assert run.command.endswith(f"train_net.py --config-file {student} SEED 4")
    table = rows(shown(result_table, [run]))["run"]
    assert table["seeds"] == "4"
    assert all(table[name] for name in ("taught by", "parameters", "iterations", "train seconds"))
    write_page([run], tmp_path / "page.html", tmp_path / "page.png")


def test_a_real_classifier_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["classification/train.py", "--overwrite", "SEED", "4"])
    train_classifier(tmp_path / "run", "SOLVER.EPOCHS", 1, "SEED", 4)
    run = read_run(tmp_path / "run")
    assert run.command == "python classification/train.py SEED 4"
    assert run.record["processes"] == 1
    table = rows(shown(result_table, [run]))["run"]
    assert (table["seeds"], table["epochs"]) == ("4", "1")
    assert all(table[name] for name in ("parameters", "top-1", "train seconds"))
