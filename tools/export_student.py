"""Write a trained student as a plain Detectron2 checkpoint and config, free of reviewkd_det.

python tools/export_student.py --config-file output/RUN/config.yaml --output FOLDER
"""

from reviewkd_det.commands.export import main

if __name__ == "__main__":
    main()
