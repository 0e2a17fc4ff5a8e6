"""The saved view of an experiment, decoded as MLflow's page decodes it."""

import base64
import json
import zlib
from dataclasses import replace

import pytest

from pipeline.views import METRICS, view_tag
from tests.factories import make_study


@pytest.fixture(scope="module")
def cells():
    return make_study("init=[random_points,kmeans_pp]", "replicates=2").plan.cells


def state(cells) -> dict:
    packed = json.loads(view_tag(cells))["state"]
    return json.loads(zlib.decompress(base64.b64decode(packed.removeprefix("deflate;"))))


def test_columns_are_the_factors_and_the_measures(cells):
    columns = state(cells)["selectedColumns"]
    factors = ["sample_size", "init", "algorithm", "mixture"]
    wanted = [f"params.`{name}`" for name in factors]
    assert columns == wanted + [f"metrics.`{name}`" for name in METRICS]
    several = (*cells, replace(cells[0], model="other"))
    assert "params.`model`" in state(several)["selectedColumns"]
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
    assert len(view_tag(large)) < 5000
    assert view_tag(cells) == view_tag(cells)
