"""Print the table of docs/methods.md: the methods, what they need, and who can train with them.

python tools/methods_table.py
"""

import argparse
import sys
from pathlib import Path

from reviewkd_det.common import entry_point

ROOT = Path(__file__).resolve().parent.parent


@entry_point
def main() -> None:
    """Look at what is registered, and print."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    # What takes seconds to import comes after what is wrong with the arguments.
    sys.path.append(str(ROOT))  # benchmarks are not installed
    from benchmarks.methods import methods_table

    print(methods_table())


if __name__ == "__main__":
    main()
