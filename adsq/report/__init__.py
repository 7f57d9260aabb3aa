"""Pictures of what a model does, and one static page that holds them with the numbers.

Figures are drawn through matplotlib's object interface: nothing here touches pyplot or any global setting.
Files are written by `adsq.files`: an older picture is replaced only by a complete one.
"""

from adsq.report.curves import pr_curve, precision_curve, training_curves
from adsq.report.grid import retrieval_grid
from adsq.report.page import html_page
from adsq.report.statistics import code_statistics

__all__ = ["code_statistics", "html_page", "pr_curve", "precision_curve", "retrieval_grid", "training_curves"]
