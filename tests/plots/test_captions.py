"""Captions: a sentence stands there exactly when what it is about is in the picture."""

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pipeline import plots
from pipeline.core.mixture import Parameters
from pipeline.figures import FIGURES
from pipeline.plots import caption_of
from pipeline.plots.caption import Captioned, listed
from pipeline.tables import OUTCOMES
from tests.factories import make_study
from tests.plots.conftest import groups_of

KINDS = {kind.name: kind for kind in FIGURES}
TINY = ("schedule=converge", "schedule.max_iter=30", "schedule.stop.tolerance=1e-3")
BANDS = ("log_likelihood_gap_bands", "distance_to_fixed_point_bands", "distance_to_truth_bands")


def captioned(group, name):
    """Return a figure and its caption."""
    figure = plots.draw(KINDS[name], group)
    return figure, caption_of(KINDS[name], figure)


def caption(group, name):
    return captioned(group, name)[1]


def labels(figure):
    return [line.get_label() for axes in figure.axes for line in axes.lines]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture(scope="module")
def lattices():
    """Return starts on a lattice: of two free means at two sizes, and of one on the population."""
    grid = ("experiment=notebook", "init=[grid]", "init.grid.points=4", *TINY)
    (flat,) = groups_of(
        make_study(
            *grid, "model=[free]", "sample_sizes=[60,90]", "replicates=1", "init.grid.low=-1"
        )
    )
    pair = "+mixture.pair={weights: [0.5,0.5], means: [-1,1], scales: [1,1]}"
    (strip,) = groups_of(
        make_study(*grid, "mixture=[]", pair, "model=[symmetric]", "sample_sizes=[60]")
    )
    # As if it were of the population.
    cells = tuple(replace(cell, sample_size=math.inf) for cell in strip.cells)
    return flat, replace(strip, cells=cells, points={})


@pytest.fixture(scope="module")
def over():
    """Return three components fitted to samples of two."""
    (group,) = groups_of(
        make_study("experiment=notebook", "model=[free]", "model.free.n_components=3", *TINY)
    )
    return group


@pytest.fixture(scope="module")
def ruled(study):
    """Return a group whose fits have rates, and were stopped by a rule at two tolerances."""
    fits = study.fits.assign(rate_observed=0.31, rate_theory=0.3, outcome="converged")
    rule = {"stop_rule": "aitken", "patience": 1, "distance_to_fixed_point": 1e-3}
    replay = pd.concat(
        fits[["cell", "replicate", "start", "fit_id"]].assign(
            tolerance=tolerance, map_evaluations=10, outcome="converged", **rule
        )
        for tolerance in (1e-2, 1e-4)
    )
    ended = {f"n_{outcome}": 0 for outcome in OUTCOMES} | {"n_converged": 12, "n_fits": 12}
    convergence = study.convergence.assign(**ended)
    return replace(study, fits=fits, replay=replay, convergence=convergence)


@pytest.fixture(scope="module")
def several(notebook, study, rivals, lattices, over, ruled):
    falling = rivals.traces.assign(map_residual=0.3 ** rivals.traces["iteration"])
    rated = replace(rivals, fits=rivals.fits.assign(rate_theory=0.3), traces=falling)
    return [notebook, study, rivals, *lattices, over, ruled, rated]


def test_every_caption_is_made_of_whole_sentences(several):
    drawn = set()
    for group in several:
        for kind in FIGURES:
            figure = plots.draw(kind, group)
            if figure is None:
                continue
            drawn.add(kind.name)
            assert isinstance(figure, Captioned)
            for text in (kind.caption, *figure.notes):
                assert text.endswith(".") and text[0] == text[0].upper()
                assert not re.search(r"\s\s|\.\.|\s[.,;:]|nan|inf\b|None", text), text
            assert len(set(figure.notes)) == len(figure.notes)
            assert caption_of(kind, figure) == " ".join([kind.caption, *figure.notes])
    assert drawn == set(KINDS)


def test_a_plain_figure_has_the_caption_of_its_kind():
    assert caption_of(FIGURES[0], Figure()) == FIGURES[0].caption


def test_a_note_is_added_where_it_applies():
    figure = Captioned()
    figure.note("Yes.")
    figure.note("No.", when=False)
    assert figure.notes == ["Yes."]
    assert [listed("abc"[:n]) for n in range(4)] == ["", "a", "a or b", "a, b or c"]


def test_captions_of_all_cases_at_once_are_gone():
    """What holds for every figure of a kind needs no condition."""
    for kind in FIGURES:
        assert not re.search(r"if there (is|are)|where there (is|are)|, where one", kind.caption)


# Fits


def test_failures_are_told_where_their_curve_is_dotted(study):
    cell = study.cells[0]
    rows = [("converged", 5.0, 0.25), ("converged", 9.0, 0.5), ("degenerate_scale", 8.0, 0.25)]
    table = pd.DataFrame(rows, columns=["kind", "x", "share"]).assign(
        cell=cell.id, target=np.nan, axis="iteration", low=0.0, high=1.0, n=8
    )
    for profiles, failed in ((table, True), (table[:2], False)):
        group = replace(study, cells=(cell,), profiles=profiles)
        figure, text = captioned(group, "iterations_distribution")
        assert any(label.endswith("failed") for label in labels(figure)) == failed
        assert ("Failures compete" in text) == failed == ("failed" in legend(figure))
        assert "95 % intervals" in text
        assert "left out" not in text
    missing = replace(study, profiles=table.assign(low=np.nan, high=np.nan), cells=(cell,))
    assert "95 %" not in caption(missing, "iterations_distribution")


@pytest.mark.parametrize("cut", [0, 3])
def test_censored_fits_are_told_where_there_are_some(study, cut):
    table = study.convergence.assign(n_max_iter=0)
    table.loc[table.index[-1], "n_max_iter"] = cut
    text = caption(replace(study, convergence=table), "iterations_distribution")
    assert ("censored" in text) == bool(cut)


def test_cells_that_are_left_out_are_told(study):
    first = study.cells[0].id
    for name in ("iterations_distribution", "log_likelihood_gap_profiles"):
        few = study.profiles.copy()
        few.loc[few["cell"] == first, "n"] = 4
        assert "left out" not in caption(study, name)
        assert "Cells with fewer than 5" in caption(replace(study, profiles=few), name)
    for name in BANDS:
        few = study.trajectories.copy()
        few.loc[few["cell"] == first, "n"] = 4
        assert "left out" not in caption(study, name)
        assert "fewer than 5 recorded rep" in caption(replace(study, trajectories=few), name)


def test_the_rate_of_theory_is_told_where_it_is_drawn(several, rivals):
    found = set()
    for group in several:
        figure = plots.draw(KINDS["log_likelihood_gap"], group)
        if figure is not None:
            text = caption_of(KINDS["log_likelihood_gap"], figure)
            drawn = any(label.endswith(", theory") for label in labels(figure))
            assert ("slope of theory" in text) == drawn
            assert ("Only plain EM" in text) == (drawn and len(set(group.methods.values())) > 1)
            found.add(drawn)
    assert found == {True, False}


def test_ends_of_gaps_are_told_by_their_outcomes(notebook):
    """The notebook's fit is cut off after nine iterations, none of them rounding."""
    text = caption(notebook, "log_likelihood_gap")
    assert "fits that were cut off at the largest number of iterations bend" in text
    assert "rounding" not in text and "map evaluations" not in text and "mass 1" not in text
    for outcome, expected in (("converged", ""), ("degenerate_scale", "fits that failed bend")):
        ended = replace(notebook, fits=notebook.fits.assign(outcome=outcome))
        text = caption(ended, "log_likelihood_gap")
        assert expected in text and ("bend down" in text) == bool(expected)


def made_up(group, quantity, rows, count=1):
    """Return some cells of one size with these bands: x, q10, q50, q90, running_share."""
    cells = tuple(replace(group.cells[0], id=f"c{k}", init=f"i{k}", starts=1) for k in range(count))
    one = pd.DataFrame(rows, columns=["x", "q10", "q50", "q90", "running_share"])
    one = one.assign(quantity=quantity, axis="iteration", n=50)
    fits = group.fits_of(group.cells[0]).assign(outcome="converged")
    derived = group.derived[group.derived["cell"] == group.cells[0].id]
    return replace(
        group,
        cells=cells,
        trajectories=pd.concat([one.assign(cell=cell.id) for cell in cells]),
        fits=fits.assign(cell="c0"),
        derived=derived.assign(cell="c0", near_singular=False),
    )


STOPS = [(0, 1.0, 2.0, 3.0, 1.0), (4, 1e-3, 2e-3, 3e-3, 0.5), (9, 0.0, 0.0, 0.0, 0.0)]
RUNS = [(x, q10, q50, q90, 1.0) for x, q10, q50, q90, _ in STOPS]


@pytest.mark.parametrize("name", BANDS)
def test_carried_fits_and_triangles_are_told_where_fits_have_stopped(study, name):
    quantity = name.removesuffix("_bands")
    for rows, stopped in ((STOPS, True), (RUNS, False)):
        figure, text = captioned(made_up(study, quantity, rows), name)
        marks = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "^"]
        assert bool(marks) == stopped == ("half of the fits have stopped" in legend(figure))
        assert ("is carried" in text) == stopped
        assert ("95 % of every cell's fits have stopped" in text) == stopped
        assert "infinitely" not in text and "levels off" not in text


@pytest.mark.parametrize("name", BANDS)
def test_bands_are_told_where_they_are_drawn(study, name):
    for count, bands in ((4, True), (5, False)):
        group = made_up(study, name.removesuffix("_bands"), STOPS, count)
        figure, text = captioned(group, name)
        assert bool(figure.axes[0].collections) == bands
        assert ("bands reach" in text, "without bands" in text) == (bands, not bands)
        assert "several starts" not in text
        cells = (replace(group.cells[0], starts=2), *group.cells[1:])
        assert "several starts" in caption(replace(group, cells=cells), name)


def test_lost_fits_are_told_with_what_is_seen_of_them(study):
    name, quantity = "log_likelihood_gap_bands", "log_likelihood_gap"
    edge, line = "the band runs into the upper edge", "there is no line"
    rows = {
        (): STOPS,
        (edge,): [(x, a, b, np.inf, share) for x, a, b, _, share in STOPS],
        (edge, line): [(0, 1, 2, 3, 1.0)] + [(x, a, np.inf, np.inf, s) for x, a, _, _, s in STOPS],
    }
    for seen, table in rows.items():
        group = made_up(study, quantity, table)
        lost = group.fits.copy()
        lost.loc[lost.index[0], "outcome"] = "degenerate_scale"
        near = group.derived.assign(near_singular=True)
        for change, reason in (
            ({"fits": lost}, "Fits that failed are infinitely far"),
            ({"derived": near}, "Fits that ended near a singularity are infinitely far"),
            ({"fits": lost, "derived": near}, "that failed or ended near a singularity are"),
        ):
            text = caption(replace(group, **change), name)
            assert reason in text
            assert [part in text for part in (edge, line)] == [
                part in seen for part in (edge, line)
            ]
        text = caption(made_up(study, "distance_to_fixed_point", table), BANDS[1])
        assert "did not converge" not in text
        other = replace(made_up(study, "distance_to_fixed_point", table), fits=lost)
        assert "Fits that did not converge are infinitely far" in caption(other, BANDS[1])


def test_a_level_is_told_where_a_curve_ends_above_the_axis(study):
    rows = [(0, 1.0, 2.0, 3.0, 1.0), (9, 0.0, 1e-12, 0.5, 0.0)]
    for name, told in zip(BANDS, (True, False, True), strict=True):
        assert ("levels off" in caption(made_up(study, name[:-6], rows), name)) == told
    # Of medians alone it is not seen.
    assert "levels off" not in caption(made_up(study, BANDS[0][:-6], rows, 5), BANDS[0])


def test_map_evaluations_are_told_where_they_are_the_axis(study, rivals):
    for name in (*BANDS, "iterations_distribution", "log_likelihood_gap"):
        for group in (study, rivals):
            figure, text = captioned(group, name)
            on_axis = {axes.get_xlabel() for axes in figure.axes} >= {"map evaluations"}
            assert ("The axis counts map evaluations" in text) == on_axis == (group is rivals)


def test_what_never_came_near_is_told_by_what_became_of_it(study):
    name = "log_likelihood_gap_profiles"
    converged = study.fits.assign(outcome="converged")
    near = study.derived.assign(log_likelihood_gap=0.0, near_singular=False)
    here = replace(study, fits=converged, derived=near)
    table = study.profiles
    whole = replace(here, profiles=table.assign(share=1.0))
    short = replace(here, profiles=table.assign(share=0.5))
    for group in (whole, short):
        assert "lacks" not in caption(group, name)
    far = replace(short, derived=near.assign(log_likelihood_gap=0.3))
    assert "100 % ended farther away (at another optimum, or early)." in caption(far, name)
    assert "lacks" not in caption(replace(far, profiles=whole.profiles), name)
    failed = replace(far, fits=converged.assign(outcome="nonfinite"))
    assert "lacks to 100 % failed." in caption(failed, name)
    cut = replace(far, fits=converged.assign(outcome="max_iter"))
    assert "lacks" not in caption(cut, name) and "censored" in caption(cut, name)
    name = "distance_to_fixed_point_profiles"
    known = replace(short, profiles=short.profiles.assign(n_unknown=0))
    assert "lacks to 100 % did not converge." in caption(known, name)
    half = replace(short, profiles=table.assign(share=0.5, n_unknown=table["n"] // 2))
    assert "lacks to 100 % failed or is not known: up to 50 % of its fits" in caption(half, name)
    assert "lacks" not in caption(whole, name)


# One fit


def test_what_stands_beside_densities_is_told(notebook, study, over, lattices):
    texts = {
        "notebook": caption(notebook, "snapshots"),
        "study": caption(study, "snapshots"),
        "over": caption(over, "snapshots"),
        "population": caption(lattices[1], "snapshots"),
    }
    for part, names in {
        "each curve is N(x; mean, scale²)": {"notebook", "population"},
        "multiplied by its weight": {"study", "over"},
        "white: undecided": {"notebook", "study"},
        "a mix of the components'": {"over"},
        "there are no points": {"population"},
    }.items():
        assert {name for name, text in texts.items() if part in text} == names


@pytest.mark.parametrize("height", [0.9, 3.0])
def test_what_is_cut_off_is_told(notebook, height):
    """A component of the notebook's truth is 0.4 high: the axis ends at 2.5 times that."""
    traces = notebook.traces.copy()
    traces["scale_0"] = 1.0 / (height * math.sqrt(2.0 * math.pi))
    traces["scale_1"] = 1.0
    text = caption(replace(notebook, traces=traces), "snapshots")
    assert ("higher than 2.5 times the truth is cut off" in text) == (height > 1.0)


@pytest.mark.parametrize("farthest", [4.9, 5.1])
def test_points_outside_are_told(notebook, farthest):
    """The notebook's picture reaches from -5 to 5."""
    points = {cell.id: np.linspace(-4.0, farthest, 40) for cell in notebook.cells}
    text = caption(replace(notebook, points=points), "snapshots")
    assert ("The x axis ends 2.5 scales" in text) == (farthest > 5.0)


def test_a_truth_of_another_size_is_told(notebook, study, over):
    for name in ("parameter_trajectories", "mean_plane"):
        assert "The truth is not drawn: it has 2 components, the model 3." in caption(over, name)
        assert "not drawn" not in caption(study, name)
        assert "truth" not in caption(replace(study, truth=None), name)
    for group, told in ((study, True), (over, False)):
        assert ("matched to the truth" in caption(group, "parameter_trajectories")) == told
    assert "move most" in caption(over, "mean_plane")
    assert "move most" not in caption(study, "mean_plane")


def test_starts_and_the_dashed_line_are_told(notebook, study, lattices):
    name = "log_likelihood_trajectories"
    assert "Thin lines" not in caption(notebook, name)
    assert "Thin lines are further starts." in caption(study, name)
    assert "Thin lines are the next 9 starts." in caption(lattices[0], name)
    assert "one sample" in caption(study, name) and "one sample" not in caption(notebook, name)
    assert "of mass 1" not in caption(study, name)
    assert "for mass 1" in caption(lattices[1], name)
    for shift, told in ((-1e3, True), (1e3, False)):
        moved = study.fits["log_likelihood_truth"] + shift
        group = replace(study, fits=study.fits.assign(log_likelihood_truth=moved))
        assert ("above the dashed line" in caption(group, name)) == told
    figure, text = captioned(
        replace(study, fits=study.fits.assign(log_likelihood_truth=np.nan)), name
    )
    assert "dashed" not in text and "at the truth" not in legend(figure)


def test_the_lowest_starts_are_told_where_the_axis_leaves_them_out(notebook):
    for start, told in ((-1e4, True), (-70.0, False)):
        traces = notebook.traces.copy()
        traces.loc[traces["iteration"] == 0, "log_likelihood"] = start
        text = caption(replace(notebook, traces=traces), "log_likelihood_trajectories")
        assert ("lie below the axis" in text) == told


def test_paths_that_failed_or_are_not_drawn_are_told(study, lattices):
    text = caption(study, "mean_plane")
    assert "failed" not in text and "evenly spread" not in text and "left out" not in text
    assert "Of more than 8 starts 8 have a path" in caption(lattices[0], "mean_plane")
    fits = study.fits.copy()
    fits.loc[(fits["replicate"] == 0) & (fits["start"] == 1), "outcome"] = "nonfinite"
    assert "that failed ends where it did" in caption(replace(study, fits=fits), "mean_plane")
    gone = study.fits.copy()
    gone.loc[gone["cell"].isin([cell.id for cell in study.panel(80)]), "outcome"] = "nonfinite"
    assert "every fit failed are left out" in caption(replace(study, fits=gone), "mean_plane")


# Maps, laws, rules


def test_a_map_tells_of_its_panels_and_its_diagonal(lattices):
    flat, strip = (caption(group, "basins") for group in lattices)
    assert "the same optimum in all panels" in flat and "diagonal" in flat
    assert "in each panel A is the best" in flat
    assert "all panels" not in strip and "diagonal" not in strip and "A is the best" in strip
    one = replace(lattices[0], cells=lattices[0].cells[:1])
    assert "all panels" not in caption(one, "basins")
    failed = replace(one, fits=one.fits.assign(outcome="nonfinite"))
    assert "A is the best" not in caption(failed, "basins")
    for text in (flat, strip):
        assert "Other:" not in text


def test_bars_and_predictions_are_told(study, rivals):
    name = "error_against_n"
    plain, ruled = caption(study, name), caption(rivals, name)
    assert "Bars are one Monte-Carlo standard error." in plain and "±" not in plain
    assert "grey: 1/√n, a regular estimator's, through the weighted centroid" in plain
    assert "±" in ruled and "a claim of the experiment predicts" in ruled
    errors = [column for column in study.convergence if column.endswith("_mcse")]
    table = study.convergence.assign(**dict.fromkeys(errors, np.nan))
    assert "Bars" not in caption(replace(study, convergence=table), name)
    one = replace(study, cells=tuple(c for c in study.cells if c.init == "kmeans_pp"))
    assert "aside" in plain and "aside" not in caption(one, name)


def test_laws_tell_of_their_bars_and_predictions(rivals):
    text = caption(rivals, "scaling_laws")
    assert "± is a slope's standard error." in text and "Dashed" not in text
    bare = tuple(law._replace(expected=(), slope_se=math.nan) for law in rivals.laws)
    assert "±" not in caption(replace(rivals, laws=bare), "scaling_laws")
    assert "Dotted" not in caption(replace(rivals, laws=bare), "scaling_laws")
    (law, *_) = [law for law in rivals.laws if law.statistic == "expected_running_time"]
    laws = (law._replace(expected=(1.0,)),)
    text = caption(replace(rivals, laws=laws), "scaling_laws")
    assert "Dotted: the slope that a claim of the experiment predicts" in text
    assert "aside" not in text
    poor = law._replace(chi_square=50.0, degrees_of_freedom=1.0)
    assert "Dashed" in caption(replace(rivals, laws=(poor,)), "scaling_laws")


@pytest.mark.parametrize("stopped", [12, 10, 2])
def test_rules_that_did_not_stop_all_fits_are_told(ruled, stopped):
    replay = ruled.replay.reset_index(drop=True)
    replay = replay[replay["cell"] == ruled.cells[0].id].copy()
    late = replay["fit_id"].isin(sorted(replay["fit_id"].unique())[stopped:])
    replay.loc[late & (replay["tolerance"] == 1e-4), "distance_to_fixed_point"] = np.nan
    group = replace(ruled, replay=replay)
    text = caption(group, "stop_replay")
    assert ("Hollow" in text) == (stopped == 10)
    assert ("no point" in text) == (stopped == 2)
    assert "one and the same" not in text and "left out" not in text
    assert "did not converge" not in text
    failed = ruled.convergence.assign(n_nonfinite=1)
    text = caption(replace(group, convergence=failed), "stop_replay")
    assert ("or these did not converge." in text) == (stopped == 10)


def test_rules_that_are_the_same_are_told(ruled):
    both = [ruled.replay.assign(stop_rule=rule) for rule in ("parameter", "map_residual")]
    group = replace(ruled, replay=pd.concat(both))
    assert "one and the same" in caption(group, "stop_replay")
    squarem = dict.fromkeys(ruled.methods, "squarem")
    assert "one and the same" not in caption(replace(group, methods=squarem), "stop_replay")


def test_outcomes_and_rates_tell_of_what_there_is(study, ruled):
    assert "All of them converged." in caption(ruled, "outcome_shares")
    some = ruled.convergence.assign(n_converged=11, n_max_iter=1)
    assert "All of" not in caption(replace(ruled, convergence=some), "outcome_shares")
    text = caption(ruled, "rates")
    assert "settled" not in text and "saddles" not in text
    fits = ruled.fits.reset_index(drop=True).copy()
    fits.loc[0, "rate_theory"] = 1.5
    assert "Rates of 1 and more" in caption(replace(ruled, fits=fits), "rates")
    fits.loc[1, "rate_observed"] = np.nan
    assert "settled on one rate" in caption(replace(ruled, fits=fits), "rates")


def test_a_histogram_is_no_truth(study):
    truth = Parameters(np.array([1.0]), np.array([0.0]), np.array([1.0]))
    for given, told in ((truth, True), (None, False)):
        text = caption(replace(study, truth=given), "log_likelihood_trajectories")
        assert "mass 1" not in text
        text = caption(replace(study, truth=given), "parameter_trajectories")
        assert ("The truth is not drawn: it has 1 component" in text) == told
