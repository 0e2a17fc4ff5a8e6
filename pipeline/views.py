"""The view that an experiment's link opens in MLflow: the columns of its table, and its charts.

Without one the table shows neither parameters nor metrics. MLflow keeps views that are saved in its
page ("Views") as tags of the experiment, and so is this one: the format is that of MLflow 3.17.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

from pipeline.plan import Cell
from pipeline.tables import parameter_columns

KEY = "em-convergence"
TAG = f"mlflow.sharedViewState.{KEY}"
# Without the workflow type the experiment's page opens on a view without runs.
PLAIN = "?workflowType=machine_learning"
TABLE = f"{PLAIN}&viewStateShareKey={KEY}"
CHARTS = f"{TABLE}&compareRunsMode=CHART"
METRICS = ("converged_share", "n_iter/median", "n_iter/q90", "statistics/rmse_mean_0")
# MLflow makes a chart of every metric, in the section of what stands before its slash; these are
# the sections in order. The last holds some hundred bars, and opens by a click.
SECTIONS = ("log_likelihood_gap", "params", "n_iter", "Model metrics", "log_likelihood", "fit")
CLOSED = "statistics"


def view_tag(cells: Sequence[Cell]) -> str:
    """Return the value of the experiment's tag `TAG`: a view for the runs of `cells`."""
    state = json.dumps(_state(cells), separators=(",", ":")).encode()
    packed = "deflate;" + base64.b64encode(zlib.compress(state, 9)).decode()
    # No clock readings: the same cells have the same tag.
    return json.dumps({"name": "Convergence", "createdAt": 0, "updatedAt": 0, "state": packed})


def _state(cells: Sequence[Cell]) -> dict[str, Any]:
    columns = [f"params.`{name}`" for name in _factors(cells)]
    columns += [f"metrics.`{name}`" for name in METRICS]
    sections = [
        {"uuid": name, "name": name, "display": name != CLOSED, "isReordered": True}
        for name in (*SECTIONS, CLOSED)
    ]
    charts = [_curve(f"log_likelihood_gap/{level}", "log") for level in ("median", "q10", "q90")]
    parameters = parameter_columns(max(cell.n_components for cell in cells))
    charts += [_curve(f"params/{name}", "linear") for name in parameters]
    return {
        "selectedColumns": columns,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,
        "compareRunSections": sections,
        "compareRunCharts": [*charts, _pictures()],
    }


def _factors(cells: Sequence[Cell]) -> list[str]:
    """Return what a row of the table says of its cell: the models only if there are several."""
    names = ["sample_size", "init", "algorithm"]
    names += [name for name in ("mixture", "observed") if any(getattr(c, name) for c in cells)]
    return names + (["model"] if len({cell.model for cell in cells}) > 1 else [])


def _curve(metric: str, scale: str) -> dict[str, Any]:
    """Return a chart over the logarithm of the iteration: cells differ by orders in it."""
    return _chart(metric, "LINE", metric.partition("/")[0]) | {
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "scaleType": scale,
        "xAxisKey": "step",
        "xAxisScaleType": "log",
        "selectedXAxisMetricKey": "",
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": True,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "ignoreOutliers": False,
    }


def _pictures() -> dict[str, Any]:
    settings = {"imageKeys": ["fit/snapshot"], "step": 0, "showRunParams": False}
    return _chart("fit/snapshot", "IMAGE", "fit") | settings


def _chart(name: str, kind: str, section: str) -> dict[str, Any]:
    return {
        "uuid": name,
        "type": kind,
        "metricSectionId": section,
        "displayName": name,
        "runsCountToCompare": 20,
        "deleted": False,
        "isGenerated": False,
    }
