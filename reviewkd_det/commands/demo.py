"""Train a teacher, a student without it and the same student with it, and compare them.

Every run is one `tools/train_net.py` command with a config of `configs/demo`; each command is
printed, and its log is in its output folder.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from reviewkd_det.common import entry_point

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "demo"
# Without these, runs of two threads are now and then many times slower. They are for the runs
# alone: a process that is bound to a core hands that on to its children.
ENVIRONMENT = {"OMP_NUM_THREADS": "2", "OMP_PROC_BIND": "true", **os.environ}


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="output/demo", help="folder of the runs and the report")
    parser.add_argument("--seed", type=int, default=1, help="seed of every run")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for every run")
    return parser.parse_args()


class Demo:
    """The runs, one after the other, under one progress bar."""

    def __init__(self, output: Path, common_opts: list[str]) -> None:
        from reviewkd_det.d2.config import load_config

        self.output = output
        self.common_opts = common_opts
        teacher, self.student_iterations = (
            load_config(CONFIGS / f"{name}.yaml", common_opts).SOLVER.MAX_ITER
            for name in ("teacher", "student")
        )
        # How long the run at equal time will be is known only after the other two.
        expected = teacher + 5 * self.student_iterations
        self.bar = tqdm(total=expected, unit="it", mininterval=0.5 if sys.stderr.isatty() else 10)

    def train(self, name: str, config: str, *opts: str) -> dict:
        """Run one training and return its `summary.json`."""
        folder = self.output / name
        command = [sys.executable, "tools/train_net.py", "--config-file"]
        command += [f"configs/demo/{config}.yaml", "--overwrite", "OUTPUT_DIR", str(folder)]
        command += [*self.common_opts, *opts]
        self.bar.write(f"\n{name}: python {shlex.join(command[1:])}")
        self.bar.set_description(name)
        self._follow(command)
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))

    def _follow(self, command: list[str]) -> None:
        done, last_line = 0, ""
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                last_line = line.strip() or last_line
                if match := re.search(r"iter: (\d+) .*total_loss: (\S+)", line):
                    self.bar.update(int(match[1]) + 1 - done)
                    self.bar.set_postfix_str(f"loss {match[2]}")
                    done = int(match[1]) + 1
        if process.returncode:
            raise RuntimeError(f"a run failed: {last_line or process.returncode}")


@entry_point
def main() -> None:
    """Run the demo and print its table."""
    args = parse_args()
    # What takes seconds to import comes after what is wrong with the arguments.
    from reviewkd_det.d2.data import check_evaluable
    from reviewkd_det.demo.results import RUNS, write_report
    from reviewkd_det.report import read_run, write_page

    output = Path(args.output).resolve()
    print("Preparing the digit scenes; they are made once, in about 20 seconds", flush=True)
    check_evaluable("digit_scenes_val")
    demo = Demo(output, ["SEED", str(args.seed), *args.opts])
    plain = ["MODEL.DISTILL.METHODS", "()"]
    demo.train("teacher", "teacher")
    baseline = demo.train("baseline", "student", *plain)
    taught = ["MODEL.DISTILL.TEACHER.WEIGHTS", str(output / "teacher" / "model_final.pth")]
    distilled = demo.train("distilled", "student", *taught)
    demo.train("distilled_unlabeled", "student_unlabeled", *taught)
    ratio = distilled["train_seconds"] / baseline["train_seconds"]
    longer = round(demo.student_iterations * ratio)
    demo.bar.total = demo.bar.n + longer
    demo.train("baseline_equal_time", "student", *plain, "SOLVER.MAX_ITER", str(longer))
    demo.bar.close()
    print(f"\n{write_report(output)}")
    page = output / "report.html"
    runs = [read_run(output / name, label) for name, label in RUNS.items()]
    write_page(runs, page, output / "comparison.png")
    print(f"Everything side by side: {page}")
