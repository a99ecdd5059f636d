"""The table of the GPU script: of what is there, against the right base, with the goals."""

import json

from benchmarks.gpu_table import gpu_table


def step(seconds, textbook=4.0, precision="float32"):
    return {
        "distilled_step": seconds,
        "distilled_to_floor": 1.12,
        "textbook_step": textbook,
        "settings": {
            "batch": 8,
            "config": "configs/r50_r18.yaml",
            "device_name": "A card",
            "precision": precision,
        },
    }


def demo(score):
    return {"plain": {"AP": score, "train_seconds": 30.2}, "all": {"AP": 5.0, "train_seconds": 61}}


def test_each_ratio_is_to_its_base(tmp_path):
    files = {
        "r50_r18_float32": step(3.0),
        "r50_r18_bfloat16": step(1.5, textbook=2.0, precision="bfloat16"),
        "r50_r18_teacher_compiled": step(2.5, textbook=2.0),
        "classifier_64_workers": {"images_per_second": 1000.0},
        "classifier_64_device_default": {"images_per_second": 3500.0},
        "classifier_1024_device_none": {"images_per_second": 10.0},
        "demo_1": demo(40.0),
        "demo_2": demo(41.5),
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    table = gpu_table(tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:-2]]
    textbook = "of the textbook's step in float32"
    for expected in (
        ["r50_r18_bfloat16, 8 images", "distilled step, ms", "1500.0", ""],
        ["r50_r18_bfloat16, 8 images", textbook, "0.38", "0.4 at most"],
        ["r50_r18_float32, 8 images", textbook, "0.75", ""],
        ["r50_r18_teacher_compiled, 8 images", "of the floor", "1.12", "1.15 at most"],
        ["classifier_64_device_default", "of the workers' loader", "3.50", "3.0 at least"],
        ["demo, plain", "AP of each seed", "40.0, 41.5", ""],
        ["demo, all", "seconds of each seed", "61, 61", ""],
    ):
        assert expected in rows
    # What has no base to be compared with has no ratio.
    assert [row[1] for row in rows if "1024" in row[0]] == ["images per second"]
    assert table.endswith("A card")
