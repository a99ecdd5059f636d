"""Train a teacher, a student without it and the same student with it, and compare them.

Every run is one `classification/train.py` command on scikit-learn's digits; each is printed.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from classification.config import load_config
from reviewkd_det.common import entry_point, replace_file

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = Path("classification", "configs", "digits")
# Without these, runs of two threads are now and then many times slower. They are for the runs
# alone: a process that is bound to a core hands that on to its children.
ENVIRONMENT = {"OMP_NUM_THREADS": "2", "OMP_PROC_BIND": "true", **os.environ}
RUNS = {
    "teacher": "teacher",
    "baseline": "student, baseline",
    "baseline_equal_time": "student, baseline at equal time",
    "distilled": "student, distilled",
}


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", default="output/demo-classification", help="folder of the runs and the table"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of every run")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for every run")
    return parser.parse_args()


def train(folder: Path, config: str, opts: list[str]) -> dict[str, Any]:
    """Run one training and return its `summary.json`.

    Raises:
        RuntimeError: it failed; it has said why.
    """
    command = [sys.executable, "classification/train.py", "--overwrite", "--config-file"]
    command += [str(CONFIGS / f"{config}.yaml"), "OUTPUT_DIR", str(folder), *opts]
    print(f"\n{folder.name}: python {shlex.join(command[1:])}", flush=True)
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=False)
    if done.returncode:
        raise RuntimeError(f"run must succeed; got exit code {done.returncode} of {folder.name}")
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def table(runs: dict[str, dict[str, Any]]) -> str:
    """The runs in the order of `RUNS`."""
    rows = [
        [
            title,
            *(f"{runs[name][metric]:.1f}" for metric in ("top1", "top5")),
            f"{runs[name]['parameters']:,}",
            f"{runs[name]['train_images']:,}",
            runs[name]["epochs"],
            f"{runs[name]['train_seconds']:.0f}",
        ]
        for name, title in RUNS.items()
    ]
    headers = ["run", "top-1", "top-5", "parameters", "labelled images", "epochs", "train seconds"]
    return tabulate(
        rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 6)
    )


@entry_point
def main() -> None:
    """Run the demo, print its table and write `summary.json`."""
    args = parse_args()
    output = Path(args.output).resolve()
    opts = ["SEED", str(args.seed), *args.opts]
    plain = [*opts, "DISTILL.METHODS", "()"]
    runs = {"teacher": train(output / "teacher", "teacher", opts)}
    runs["baseline"] = train(output / "baseline", "student", plain)
    teacher_weights = ["TEACHER.WEIGHTS", str(output / "teacher" / "last.pth")]
    runs["distilled"] = train(output / "distilled", "student", [*opts, *teacher_weights])
    ratio = runs["distilled"]["train_seconds"] / runs["baseline"]["train_seconds"]
    epochs = round(load_config(ROOT / CONFIGS / "student.yaml", opts).SOLVER.EPOCHS * ratio)
    runs["baseline_equal_time"] = train(
        output / "baseline_equal_time", "student", [*plain, "SOLVER.EPOCHS", str(epochs)]
    )
    text = json.dumps(runs, indent=2) + "\n"
    replace_file(output / "summary.json", lambda part: part.write_text(text, encoding="utf-8"))
    print(f"\n{table(runs)}\n\nThe teacher saw more labels than the student. Runs: {output}")


if __name__ == "__main__":
    main()
