"""Train a teacher, a student without it and the same student with it, and compare them.

python tools/demo.py [--seed N] [--output FOLDER]
"""

from reviewkd_det.commands.demo import main
from reviewkd_det.common import one_sentence_errors

if __name__ == "__main__":
    one_sentence_errors(main)
