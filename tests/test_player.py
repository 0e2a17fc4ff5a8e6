"""The player: its numbers are those of the traces, its axes those of the figures."""

import json
import re

import matplotlib as mpl
import numpy as np
import pytest

from pipeline.plan import read_plan
from pipeline.plots.snapshots import snapshot_picture, subject_of
from pipeline.plots.thinning import MOST_STEPS, thinned
from pipeline.report.player import player
from pipeline.stages.report import _groups, report
from pipeline.tables import read_statistics, read_table, read_traces
from tests.factories import make_study, write_study

PARTS = ("weight", "mean", "scale")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a study of two truths, with sizes that need thinning, and its page."""
    place = tmp_path_factory.mktemp("player") / "notebook"
    overrides = ("mixture=[notebook,marron_wand_09_trimodal]", "model=[free]", "replicates=2")
    overrides += ("init=[random_points,kmeans_pp]", "schedule.max_iter=6", "sample_sizes=[50,900]")
    overrides += ("figures=[outcome_shares]", "schedule.snapshots=[0]")
    write_study(make_study("experiment=notebook", *overrides), place)
    report(place)
    return place


def told(folder):
    """Return the data of the players in the page, by id."""
    html = (folder / "report.html").read_text("utf-8")
    pattern = r'<section class="player" id="player-(.*?)".*?application/json">(.*?)</script>'
    return {name: json.loads(data) for name, data in re.findall(pattern, html, re.DOTALL)}


def groups(folder):
    plan = read_plan(folder)
    tables = {"convergence": read_statistics(folder, plan)}
    tables |= {name: read_table(folder, name) for name in ("claims", "comparisons", "slopes")}
    return {group.name: group for group in _groups(folder, plan, tables)}


def test_its_numbers_are_those_of_the_traces(folder):
    traces = read_traces(folder)
    players = told(folder)
    assert set(players) == {"notebook-free", "marron_wand_09_trimodal-free"}
    cells = [cell for data in players.values() for cell in data["cells"]]
    assert [cell["id"] for cell in cells] == [cell.id for cell in read_plan(folder).cells]
    for cell in cells:
        rows = traces[
            (traces["cell"] == cell["id"]) & (traces["replicate"] == 0) & (traces["start"] == 0)
        ]
        assert cell["iteration"] == rows["iteration"].tolist()
        assert cell["log_likelihood"] == rows["log_likelihood"].tolist()
        for part in PARTS:
            for k, values in enumerate(cell[f"{part}s"]):
                assert values == rows[f"{part}_{k}"].tolist()
        assert cell["evaluations"] is None and cell["outcome"] == "max iter"


def test_its_points_are_those_of_the_sample(folder):
    for data in told(folder).values():
        for name, sample in data["samples"].items():
            points = np.load(folder / "samples" / f"{name}.npy")[0]
            cell = next(cell for cell in data["cells"] if cell["sample"] == name)
            drawn = points[:: 1 if len(points) <= 400 else 3]
            drawn = drawn[(drawn >= cell["low"]) & (drawn <= cell["high"])]
            close = 1e-4 * (cell["high"] - cell["low"])
            np.testing.assert_allclose(sample["points"], drawn, rtol=0, atol=close)
            assert len(sample["points"]) <= 400
            assert ("1 in 3 points drawn" in sample["remark"]) == (len(points) == 900)


def test_its_axes_are_those_of_the_figures(folder):
    """The top is the highest of the pictures' tops, which `snapshots` finds from its curves."""
    for group in groups(folder).values():
        data = player(group)
        # The first and the last: drawing takes its time.
        for cell, shown in zip(group.cells[::3], data["cells"][::3], strict=True):
            tops = []
            for _, row in group.representative(cell).iterrows():
                axes = snapshot_picture(subject_of(group, cell), row).axes[0]
                assert axes.get_xlim() == pytest.approx((shown["low"], shown["high"]), rel=1e-12)
                tops.append(axes.get_ylim()[1] / 1.06)
            assert shown["top"] == pytest.approx(max(tops), rel=1e-9)


def test_its_colors_are_those_of_the_figures(folder):
    data = told(folder)["notebook-free"]
    shares = np.array([0.0, 0.003, 0.25, 0.5, 0.77, 0.9999, 1.0])
    wanted = [mpl.colors.to_hex(color) for color in mpl.colormaps["RdBu"](shares)]
    # As the script looks them up.
    ramp = data["ramp"]
    assert [ramp[min(len(ramp) - 1, int(np.floor(s * len(ramp))))] for s in shares] == wanted
    assert data["colors"] == ["#2166ac", "#b2182b"]
    assert told(folder)["marron_wand_09_trimodal-free"]["ramp"] is None


@pytest.mark.parametrize("length", [1, 2, 199, 200, 201, 5000, 1_000_000])
def test_thinning_keeps_the_ends_and_grows(length):
    iterations = np.arange(length)
    kept = thinned(iterations, MOST_STEPS)
    assert len(kept) <= MOST_STEPS and (np.diff(kept) > 0).all()
    assert kept[0] == 0 and kept[-1] == length - 1
    if length > 1000:
        steps = np.diff(kept)
        assert (steps[:10] == 1).all() and steps[-1] > 0.02 * length


def test_thinned_traces_may_skip_iterations():
    iterations = np.unique(np.round(1.02 ** np.arange(800)).astype(int)) - 1
    kept = iterations[thinned(iterations, 50)]
    assert kept[0] == 0 and kept[-1] == iterations[-1] and 40 <= len(kept) <= 50


def test_nothing_that_is_not_finite_is_told(folder):
    group = groups(folder)["notebook-free"]
    group.traces.loc[group.traces.index[0], ["log_likelihood", "mean_0"]] = np.nan
    data = player(group)
    assert data["cells"][0]["log_likelihood"][0] is None
    json.dumps(data, allow_nan=False)
