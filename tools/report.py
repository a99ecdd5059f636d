"""Write a page and a picture that compare any number of runs.

python tools/report.py output/demo/teacher output/demo/plain everything=output/demo/all
"""

from reviewkd_det.commands.report import main

if __name__ == "__main__":
    main()
