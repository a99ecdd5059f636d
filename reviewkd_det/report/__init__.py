"""A page and a picture of any number of runs, from what each wrote into its output folder.

Importing it is quick: pandas, seaborn and matplotlib are imported when a report is made.
"""

from reviewkd_det.report.page import write_page
from reviewkd_det.report.reading import read_run
from reviewkd_det.report.runs import Run

__all__ = ["Run", "read_run", "write_page"]
