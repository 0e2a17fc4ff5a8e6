"""The pages for people: one self-contained file per experiment, and an index over them."""

from pipeline.report.index import index_page
from pipeline.report.page import Picture, PlayerPart, render_report

__all__ = ["Picture", "PlayerPart", "index_page", "render_report"]
