"""Train a teacher, a student without it and the same student with it, and compare them.

python tools/demo.py [--seed N] [--output FOLDER]
"""

from reviewkd_det.commands.demo import main

if __name__ == "__main__":
    main()
