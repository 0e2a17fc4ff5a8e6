"""Rates observed against rates in theory: the drawn numbers, and which fits are drawn."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline.plots import png_bytes, svg_bytes
from pipeline.plots.rates import MOST_FITS, limits, nines, rate_ticks
from tests.plots.conftest import draw


@pytest.fixture
def rated(study):
    """Give the study rates: every third fit has none, one is a saddle's."""
    fits = study.fits.reset_index(drop=True).copy()
    place = np.arange(len(fits))
    fits["rate_theory"] = 1 - 10.0 ** -(1 + (place % 7) / 3)
    fits["rate_observed"] = fits["rate_theory"] + 1e-6 * (place % 5)
    fits.loc[place % 3 == 0, "rate_observed"] = np.nan
    fits.loc[1, "rate_theory"] = 1.0
    return replace(study, fits=fits)


def markers(axes):
    return {
        line.get_label(): np.asarray(line.get_xydata())
        for line in axes.lines
        if line.get_marker() not in ("None", None, "")
    }


def test_nines():
    np.testing.assert_allclose(nines(np.array([0.0, 0.9, 0.99, 0.5])), [0, 1, 2, np.log10(2)])


def test_the_points_are_the_tables_rates_and_the_diagonal_is_dashed(rated):
    figure = draw(rated, "rates")
    agreement, difference = figure.axes
    n_drawn = 0
    for size in (40, 80):
        expected = [
            (row.rate_theory, row.rate_observed)
            for row in rated.fits.itertuples()
            if row.sample_size == size and np.isfinite(row.rate_observed) and row.rate_theory < 1
        ]
        n_drawn += len(expected)
        drawn = markers(agreement)[f"n = {size}"]
        np.testing.assert_allclose(1 - 10.0**-drawn, expected, rtol=1e-12)
        apart = markers(difference)[f"n = {size}"][:, 1]
        np.testing.assert_allclose(
            apart, [max(abs(b - a), 1e-16) for a, b in expected], rtol=1e-9, atol=1e-15
        )
    (diagonal,) = [line for line in agreement.lines if line.get_linestyle() == "--"]
    np.testing.assert_array_equal(*diagonal.get_data())
    assert f"{n_drawn} of {len(rated.fits)} fits" in figure.get_suptitle()
    ticks = [text.get_text() for text in agreement.get_xticklabels()]
    assert dict(zip(ticks, agreement.get_xticks(), strict=True))["0.99"] == pytest.approx(2.0)


def test_few_points_are_larger_and_the_label_is_no_longer_than_its_axis(rated):
    def size(group):
        return draw(group, "rates").axes[0].lines[0].get_markersize()

    many = replace(rated, fits=rated.fits.loc[rated.fits.index.repeat(1000)])
    assert len(rated.fits) < 100 and size(rated) > size(many)
    figure = draw(rated, "rates")
    label = figure.axes[1].yaxis.label.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert label.height <= figure.axes[1].bbox.height


def test_one_size_is_coloured_by_init(rated):
    one = replace(rated, cells=tuple(rated.panel(40)), fits=rated.fits.query("sample_size == 40"))
    assert set(markers(draw(one, "rates").axes[0])) == {"random_points", "kmeans_pp"}


def test_many_fits_are_thinned(rated):
    fits = rated.fits.loc[rated.fits.index.repeat(1000)]
    drawn = markers(draw(replace(rated, fits=fits), "rates").axes[0])
    assert all(MOST_FITS / 2 < len(each) <= MOST_FITS for each in drawn.values())


def test_it_repeats_and_says_nothing_without_rates(rated, study):
    assert svg_bytes(draw(rated, "rates")) == svg_bytes(draw(rated, "rates"))
    assert png_bytes(draw(rated, "rates")) == png_bytes(draw(rated, "rates"))
    assert draw(study, "rates") is None
    assert draw(replace(rated, fits=rated.fits.iloc[1:5]), "rates") is None


@pytest.mark.parametrize("middle", [0.0, 0.183, 0.46430, 1.1, 2.37, 7.9])
@pytest.mark.parametrize("spread", [0.0, 1e-9, 0.2, 3.0])
def test_every_axis_has_labelled_ticks_at_their_rates(middle, spread):
    low, high = limits(np.array([middle, middle + spread]))
    assert high - low >= 0.5 * (1 - 1e-12) and low < middle and high > middle + spread
    ticks = rate_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    for text, place in ticks.items():
        assert low <= place <= high
        assert float(nines(np.array(float(text)))) == pytest.approx(place, abs=1e-6)


def test_equal_rates_and_series_without_points(rated):
    """Rounding does not fill the picture, and the legend names only what is drawn."""
    fits = rated.fits.query("sample_size == 40").assign(rate_theory=0.6567)
    fits["rate_observed"] = 0.6567 + 1e-9 * np.arange(len(fits))
    figure = draw(replace(rated, fits=fits), "rates")
    agreement, difference = figure.axes
    assert np.ptp(agreement.get_xlim()) >= 0.5 * (1 - 1e-12)
    for axis in (agreement.xaxis, agreement.yaxis, difference.xaxis, difference.yaxis):
        assert len([text for text in axis.get_ticklabels() if text.get_text()]) >= 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["n = 40"]
