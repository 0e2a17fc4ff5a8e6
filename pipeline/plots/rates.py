"""The rate at which fits converged against the rate that theory gives."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.plots.caption import Captioned
from pipeline.plots.group import FEWEST_FITS, Group
from pipeline.plots.style import (
    MARKERS,
    WIDTH,
    few_log_ticks,
    finished,
    legend_below,
    log_axis,
    series_colors,
)

MANY = 100  # points, of which each is small
MOST_FITS = 2000  # drawn of a colour; more lie upon one another
# First digits of what a rate lacks to 1 at the ticks: the first that give two of them or more.
LACKING = ((1,), (5, 1), (5, 2, 1), (7, 5, 3, 2, 1))
NINES = range(13)
FEWEST_TICKS, MOST_TICKS = 2, 7
SHORTEST = 0.5  # decades of an axis: a shorter one would show rounding
SMALLEST = 1e-16  # difference drawn: where two rates agree to the last bit


def nines(rates: np.ndarray) -> np.ndarray:
    """Return -log10(1 - rate): 1 for 0.9, 2 for 0.99; rates crowd below 1."""
    return -np.log10(1.0 - rates)


def compared(group: Group) -> pd.DataFrame:
    """Return the fits that have both rates, in [0, 1); ``series`` is what tells them apart."""
    fits = group.fits.dropna(subset=["rate_observed", "rate_theory"])
    rates = fits[["rate_observed", "rate_theory"]]
    fits = fits[((rates >= 0.0) & (rates < 1.0)).all(axis=1)]
    names = {
        cell.id: group.size_label(cell.sample_size) if len(group.sizes) > 1 else group.label(cell)
        for cell in group.cells
    }
    return fits.assign(series=fits["cell"].map(names))


def rate_ticks(low: float, high: float) -> dict[str, float]:
    """Return ticks of an axis of nines: round rates in words, and their places."""
    for digits in LACKING:
        lacks = [(digit, k) for k in NINES for digit in digits if digit <= 10**k]
        ticks = {f"{1 - digit / 10**k:.{k}f}": k - float(np.log10(digit)) for digit, k in lacks}
        ticks = {text: place for text, place in ticks.items() if low <= place <= high}
        if len(ticks) >= FEWEST_TICKS:
            break
    return dict(list(ticks.items())[:: -(-len(ticks) // MOST_TICKS) or 1])


def limits(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of a logarithmic axis, in decades, around logarithms."""
    low, high = float(values.min()), float(values.max())
    margin = max(0.05 * (high - low), (SHORTEST - (high - low)) / 2.0)
    return low - margin, high + margin


def _rate_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Label an axis of nines with the rates themselves."""
    ticks = rate_ticks(low, high)
    (axes.set_xticks if which == "x" else axes.set_yticks)(list(ticks.values()), list(ticks))
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)


@finished
def rates(group: Group) -> Figure | None:
    """Draw each fit's observed rate against its theoretical one, and how far they differ."""
    fits = compared(group)
    if len(fits) < FEWEST_FITS:
        return None
    labels = [group.size_label(size) for size in group.sizes]
    series = labels if len(labels) > 1 else group.labels
    figure = Captioned(figsize=(WIDTH, 3.6), layout="constrained")
    agreement, difference = figure.subplots(1, 2)
    both = nines(fits[["rate_observed", "rate_theory"]].to_numpy(float))
    low, high = limits(both)
    differences = fits["rate_observed"] - fits["rate_theory"]
    apart_low, apart_high = limits(np.log10(np.maximum(differences.abs(), SMALLEST)))
    for place, (name, color) in enumerate(series_colors(series).items()):
        rows = fits[fits["series"] == name]
        if rows.empty:
            continue
        rows = rows.iloc[:: -(-len(rows) // MOST_FITS)]
        size = 5.0 if len(fits) < MANY else 3.0
        theory = nines(rows["rate_theory"].to_numpy(float))
        observed = rows["rate_observed"].to_numpy(float)
        apart = np.abs(observed - rows["rate_theory"].to_numpy(float))
        for axes, heights in (
            (agreement, nines(observed)),
            (difference, np.maximum(apart, SMALLEST)),
        ):
            axes.plot(
                theory, heights, linestyle="", marker=MARKERS[place % len(MARKERS)],
                markersize=size, color=color, alpha=0.6, markeredgewidth=0, label=name,
                rasterized=True,
            )  # fmt: skip
    agreement.plot([low, high], [low, high], color="black", linestyle="--", linewidth=0.9, zorder=3)
    for axes in (agreement, difference):
        _rate_axis(axes, "x", low, high)
        axes.set_xlabel("rate in theory")
    _rate_axis(agreement, "y", low, high)
    agreement.set_ylabel("rate observed")
    agreement.set_title("agreement")
    log_axis(difference)
    difference.set_ylim(10.0**apart_low, 10.0**apart_high)
    few_log_ticks(difference)
    difference.set_ylabel("|observed \N{MINUS SIGN} theory|")
    difference.set_title("how far they differ")
    figure.suptitle(f"{group.title}: {len(fits)} of {len(group.fits)} fits have both rates")
    legend_below(figure, agreement)
    both_rates = group.fits[["rate_observed", "rate_theory"]]
    figure.note(
        "Only fits whose trace settled on one rate have an observed one.",
        when=bool(both_rates["rate_observed"].isna().any()),
    )
    figure.note(
        "Rates of 1 and more (saddles) are not drawn.",
        when=bool((both_rates >= 1.0).any(axis=None)),
    )
    figure.note(
        f"Of a colour about {MOST_FITS} fits are drawn.",
        when=bool((fits["series"].value_counts() > MOST_FITS).any()),
    )
    return figure
