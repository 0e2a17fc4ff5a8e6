"""Stopping rules replayed: quantiles by hand, and the points that are drawn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.plots import png_bytes, svg_bytes
from pipeline.plots.replayed import stops, tolerance_text
from tests.plots.conftest import draw


@pytest.fixture
def replayed(study):
    """Two rules at two tolerances for twelve fits of two cells; some stops are not known."""
    random = np.random.default_rng(1)
    rows = []
    for cell in study.cells[:2]:
        for fit in range(12):
            for rule in ("aitken", "parameter"):
                for tolerance in (1e-2, 1e-4):
                    fired = not (rule == "aitken" and tolerance == 1e-4 and fit < 4)
                    fired &= not (rule == "parameter" and tolerance == 1e-4 and fit < 7)
                    rows.append(
                        {
                            "cell": cell.id,
                            "replicate": fit // 2,
                            "start": fit % 2,
                            "fit_id": f"{cell.id}-r{fit // 2}-s{fit % 2}",
                            "stop_rule": rule,
                            "tolerance": tolerance,
                            "patience": 1,
                            "outcome": "converged" if fired else "max_iter",
                            "map_evaluations": int(random.integers(5, 500)),
                            "distance_to_fixed_point": (
                                random.uniform(1e-6, 1e-1) if fired else np.nan
                            ),
                        }
                    )
    return replace(study, replay=pd.DataFrame(rows))


def by_hand(replay, cell, rule, tolerance, column):
    values = [
        row[column]
        for _, row in replay.iterrows()
        if row["cell"] == cell and row["stop_rule"] == rule and row["tolerance"] == tolerance
        and row["outcome"] == "converged" and not np.isnan(row["distance_to_fixed_point"])
    ]  # fmt: skip
    return np.quantile(values, [0.1, 0.5, 0.9])


def test_stops_are_quantiles_over_the_fits_that_stopped(replayed):
    cell = replayed.cells[0].id
    table = stops(replayed.replay[replayed.replay["cell"] == cell])
    assert table["tolerance"].tolist() == [1e-2, 1e-4] * 2
    np.testing.assert_allclose(table["share"], [1, 8 / 12, 1, 5 / 12])
    for row in table.itertuples():
        for column in ("map_evaluations", "distance_to_fixed_point"):
            expected = by_hand(replayed.replay, cell, row.rule, row.tolerance, column)
            found = table.loc[row.Index, [f"{column}_{q}" for q in ("0.1", "0.5", "0.9")]]
            np.testing.assert_allclose(found.to_numpy(float), expected)


def test_lines_run_through_the_medians_with_bars_between_the_quantiles(replayed):
    figure = draw(replayed, "stop_replay")
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    assert len(drawn) == 2
    for axes, cell in zip(drawn, replayed.cells[:2], strict=True):
        lines = {bars.get_label(): bars for bars in axes.containers}
        # Fewer than half of the fits stopped at parameter, 1e-4.
        for rule, tolerances in (("aitken", [1e-2, 1e-4]), ("parameter", [1e-2])):
            line, _, (across, upright) = lines[rule]
            for place, tolerance in enumerate(tolerances):
                cost, left = (
                    by_hand(replayed.replay, cell.id, rule, tolerance, column)
                    for column in ("map_evaluations", "distance_to_fixed_point")
                )
                np.testing.assert_allclose(line.get_xydata()[place], [cost[1], left[1]])
                np.testing.assert_allclose(across.get_segments()[place][:, 0], cost[[0, 2]])
                np.testing.assert_allclose(upright.get_segments()[place][:, 1], left[[0, 2]])
            assert len(line.get_xydata()) == len(tolerances)
        hollow = [
            each.get_xydata()
            for each in axes.lines
            if each.get_markerfacecolor() == "white" and len(each.get_xydata())
        ]
        assert len(hollow) == 1 and len(hollow[0]) == 1


def test_every_point_has_its_tolerance_beside_it(replayed):
    for axes in [axes for axes in draw(replayed, "stop_replay").axes if axes.get_visible()]:
        lines = {bars.get_label(): bars.lines[0].get_xydata() for bars in axes.containers}
        beside = {(text.get_text(), *text.xy) for text in axes.texts}
        two, four = ("\N{MINUS SIGN}2", "\N{MINUS SIGN}4")
        expected = {(two, *lines["aitken"][0]), (four, *lines["aitken"][1])}
        assert beside == expected | {(two, *lines["parameter"][0])}


@pytest.mark.parametrize(
    ("tolerance", "text"),
    [(1e-6, "\N{MINUS SIGN}6"), (1.0, "0"), (3e-4, "0.0003"), (0.0, ""), (np.nan, "")],
)
def test_a_tolerance_is_written_by_its_exponent(tolerance, text):
    assert tolerance_text(tolerance) == text


def test_patience_is_named_where_it_differs(replayed):
    other = replayed.replay.assign(patience=3)
    both = replace(replayed, replay=pd.concat([replayed.replay, other], ignore_index=True))
    texts = {text.get_text() for text in draw(both, "stop_replay").legends[0].get_texts()}
    assert texts == {f"{rule} (patience {p})" for rule in ("aitken", "parameter") for p in (1, 3)}


def test_it_repeats_and_says_nothing_without_a_replay(replayed, study):
    assert svg_bytes(draw(replayed, "stop_replay")) == svg_bytes(draw(replayed, "stop_replay"))
    assert png_bytes(draw(replayed, "stop_replay")) == png_bytes(draw(replayed, "stop_replay"))
    assert draw(study, "stop_replay") is None
    few = replayed.replay[replayed.replay["replicate"] < 2]
    assert draw(replace(replayed, replay=few), "stop_replay") is None
    unknown = replayed.replay.assign(distance_to_fixed_point=np.nan)
    assert draw(replace(replayed, replay=unknown), "stop_replay") is None
