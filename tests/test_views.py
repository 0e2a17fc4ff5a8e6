"""The saved view of an experiment, decoded as MLflow's page decodes it."""

import base64
import json
import zlib
from dataclasses import replace

import pytest

from pipeline.views import CREATED, DURATION, METRICS, RUN_NAME, make_view
from tests.factories import make_study


@pytest.fixture(scope="module")
def cells():
    return make_study("init=[random_points,kmeans_pp]", "replicates=2").plan.cells


def state(cells, *overrides: str) -> dict:
    packed = json.loads(make_view(cells, overrides).value)["state"]
    return json.loads(zlib.decompress(base64.b64decode(packed.removeprefix("deflate;"))))


def test_columns_are_the_factors_and_the_measures(cells):
    columns = state(cells)["selectedColumns"]
    wanted = [f"params.`{name}`" for name in ("mixture", "sample_size", "init")]
    assert columns == wanted + [f"metrics.`{name}`" for name in METRICS]
    for factor in ("model", "algorithm"):
        several = (*cells, replace(cells[0], **{factor: "other"}))
        assert f"params.`{factor}`" in state(several)["selectedColumns"]
    real = replace(cells[0], mixture=None, observed="galaxies")
    assert "params.`observed`" in state([real])["selectedColumns"]
    assert "params.`mixture`" not in state([real])["selectedColumns"]


def test_every_chart_is_in_a_section(cells):
    shown = state(cells)
    sections = {each["uuid"] for each in shown["compareRunSections"]}
    charts = shown["compareRunCharts"]
    assert {each["metricSectionId"] for each in charts} <= sections
    assert len({each["uuid"] for each in charts}) == len(charts)


def test_the_tag_is_short_enough_for_mlflow_and_the_same_for_the_same_cells(cells):
    large = [replace(cells[0], n_components=20)]
    assert len(make_view(large, ["seed=7"] * 100).value) < 5000
    assert make_view(cells) == make_view(cells)


def test_the_columns_stand_in_their_order_and_are_as_wide_as_their_text(cells):
    shown = state([replace(cells[0], mixture="m" * 50)])
    columns = shown["selectedColumns"]
    assert shown["columnOrder"] == [RUN_NAME, CREATED, *columns, DURATION]
    assert set(columns) < set(shown["columnWidths"]) < set(shown["columnOrder"])
    assert shown["columnWidths"]["params.`mixture`"] > 6 * 50
    assert shown["columnWidths"]["metrics.`converged_share`"] > 6 * len("converged_share")


def test_what_was_overridden_has_a_column_in_a_view_of_its_own(cells):
    assert state(cells, "seed=7")["selectedColumns"][-1] == "params.`overrides`"
    own, plain = make_view(cells, ["seed=7"]), make_view(cells)
    assert own.tag != plain.tag
    assert own.key in own.table and own.key in own.charts
