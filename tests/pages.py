"""What the tests of the page share: its tables, and a reader of HTML."""

from html.parser import HTMLParser

import pandas as pd

from pipeline.statistics.claims import claims
from pipeline.statistics.comparisons import comparisons
from pipeline.statistics.references import derived
from pipeline.statistics.slopes import slopes
from tests.factories import Study


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """Return what the stage aggregate would have made of a study for the page."""
    convergence, plan = study.convergence, study.plan
    lines = slopes(convergence, plan)
    paired = comparisons(study.fits, plan, derived(study.fits, plan))
    said = claims(convergence, lines, plan)
    return {"convergence": convergence, "slopes": lines, "comparisons": paired, "claims": said}


class Page(HTMLParser):
    """Collects tags with attributes, and text; fails on tags that are closed out of order."""

    VOID = frozenset({"meta", "img", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect a tag."""
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that the innermost tag is the one closed."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self.text += data
