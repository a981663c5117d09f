"""One HTML page of one or several runs, complete in itself: `adaptau report`.

page.py       what is said: tables, and where figures go (template.html)
figures.py    Matplotlib figures as SVG that takes its colours from the page
"""

from adaptau_ext.report.page import write_report

__all__ = ["write_report"]
