"""A rollout as one HTML file that needs nothing else: no script, no network, no font.

It is read where it was sent to, years later, on a telephone, on paper, by a screen reader. So all that a chart shows is
also in a table, colour says nothing alone, and no word of a guest's is taken for markup.
"""

from osvdeploy.report.page import page

__all__ = ["page"]
