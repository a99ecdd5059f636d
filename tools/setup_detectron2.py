"""Find Detectron2, or install a pure-Python copy of it; print which one is used.

python tools/setup_detectron2.py
"""

from reviewkd_det.commands.setup_detectron2 import main

if __name__ == "__main__":
    main()
