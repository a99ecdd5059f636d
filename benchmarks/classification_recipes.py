"""Print the tables of docs/classification_recipes.md, from the recipes and their headers.

python benchmarks/classification_recipes.py
"""

import argparse
import re
from pathlib import Path

from tabulate import tabulate

from classification.config import load_config
from reviewkd_det.common import one_sentence_errors

__all__ = ["published_top1", "recipes_tables"]

CONFIGS = Path(__file__).resolve().parents[1] / "classification" / "configs"
TITLES = {
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
    "cifar100_224": "CIFAR-100 at 224 pixels",
}
PUBLISHED = "# Top-1, published, not ours: "
# Who reached it, then the score: nobody is named in the header of a network by itself.
SCORE = re.compile(r"(?:(\w+) )?(\d+\.\d+)")


def published_top1(path: Path) -> dict[str, str]:
    """Read the published scores in a recipe's header.

    Returns:
        The known scores by `teacher`, `student` and the method; "" for a network by itself.
    """
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(PUBLISHED):
            return dict(SCORE.findall(line))
    return {}


def recipes_tables(configs: Path = CONFIGS) -> str:
    """One section per data set and one row per pair of networks, in Markdown."""
    sections = []
    for folder, title in TITLES.items():
        rows = [row for path in sorted((configs / folder).glob("*.yaml")) if (row := _row(path))]
        table = tabulate(rows, "keys", tablefmt="github", disable_numparse=True)
        sections.append(f"## {title}\n\n{table}")
    return "\n\n".join(sections)


def _row(path: Path) -> dict[str, str]:
    """The cells by their headers; none for a recipe without a teacher."""
    cfg = load_config(path)
    if not cfg.DISTILL.METHODS:
        return {}
    method = cfg.DISTILL.METHODS[0]
    teacher, student = (name.rpartition("/")[2] for name in (cfg.TEACHER.NAME, cfg.MODEL.NAME))
    guessed = "# Weight not published" in path.read_text(encoding="utf-8")
    weight = cfg.DISTILL[method.upper()].LOSS_WEIGHT
    known = published_top1(path)
    return {
        "teacher -> student": f"{teacher} -> {student}",
        "config": f"{path.parent.name}/{path.name}",
        "weight": f"{weight:g}{', not published' if guessed else ''}",
        **{f"published {who}": known.get(who, "-") for who in ("teacher", "student", method)},
        "ours": "not run",
    }


def main() -> None:
    """Print the tables."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(recipes_tables())


if __name__ == "__main__":
    one_sentence_errors(main)
