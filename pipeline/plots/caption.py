"""What a figure says of itself, below it on the page."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from pipeline.figures import FigureKind
from pipeline.plots.group import Group

POPULATION = "Of the population the log-likelihood is for mass 1."


class Captioned(Figure):
    """A figure with sentences on what is drawn in it, or left out: only drawing it tells.

    Attributes
    ----------
    notes : list of str
        In the order of the caption, which begins with what holds for every figure of the kind.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.notes: list[str] = []

    def note(self, text: str, *, when: bool = True) -> None:
        """Add a sentence, or several, if it applies."""
        if when:
            self.notes.append(text)


def listed(words: Sequence[str]) -> str:
    """Join words: a, b or c."""
    return " or ".join([*[", ".join(words[:-1])] * (len(words) > 1), *words[-1:]])


def caption_of(kind: FigureKind, figure: Figure) -> str:
    """Return the caption of a figure of this kind: a plain one has no notes."""
    notes = figure.notes if isinstance(figure, Captioned) else []
    return " ".join([kind.caption, *notes])


def note_other_truth(figure: Captioned, group: Group) -> None:
    """Say why no truth is drawn, where there is one."""
    if group.truth is not None and group.comparable_truth is None:
        figure.note(
            f"The truth is not drawn: it has {len(group.truth.means)} components, the model "
            f"{group.n_components}."
        )
