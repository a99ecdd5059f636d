"""Write a page and a picture that compare any number of runs.

python tools/report.py output/demo/teacher output/demo/distilled plain=output/demo/baseline
"""

from reviewkd_det.commands.report import main

if __name__ == "__main__":
    main()
