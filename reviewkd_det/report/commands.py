"""The commands that repeat runs."""

import ast
import shlex

from reviewkd_det.report.runs import Run

__all__ = ["command"]

LOGGED = "Command line arguments: Namespace("
# Arguments that matter for the result, where they are not their defaults.
COUNTS = ("num_gpus", "num_machines")


def command(run: Run) -> str:
    """The command that started a run; where its log names none, one with its whole config.

    Of the commands in the log it is the last that began a training, so not one that resumed it.
    """
    begun = [arguments for arguments in _logged(run.log) if not arguments.get("resume")]
    parts = ["python", run.kind.script, "--config-file"]
    if not begun or not begun[-1].get("config_file"):
        return shlex.join([*parts, str(run.folder / "config.yaml")])
    parts.append(begun[-1]["config_file"])
    for name in COUNTS:
        if (count := begun[-1].get(name, 1)) != 1:
            parts += [f"--{name.replace('_', '-')}", str(count)]
    return shlex.join([*parts, *map(str, begun[-1].get("opts", []))])


def _logged(log: str) -> list[dict]:
    """The arguments of every training that the log names, as Detectron2 wrote them."""
    found = []
    for line in log.splitlines():
        _, logged, text = line.partition(LOGGED)
        if not logged:
            continue
        try:
            call = ast.parse(f"dict({text}", mode="eval").body
            assert isinstance(call, ast.Call)
            values = {str(x.arg): ast.literal_eval(x.value) for x in call.keywords}
        except (SyntaxError, ValueError):  # a line that was cut short
            continue
        if not values.get("eval_only"):
            found.append(values)
    return found
