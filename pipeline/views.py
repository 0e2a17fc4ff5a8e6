"""The view that an experiment's link opens in MLflow: the columns of its table, and its charts.

Without one the table shows neither parameters nor metrics. MLflow keeps views that are saved in its
page ("Views") as tags of the experiment, and so is this one: the format is that of MLflow 3.17.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.plan import Cell
from pipeline.tables import parameter_columns

# Without the workflow type the experiment's page opens on a view without runs.
PLAIN = "?workflowType=machine_learning"
METRICS = ("converged_share", "n_iter/median", "n_iter/q90", "statistics/rmse_mean_0")
# MLflow makes a chart of every metric, in the section of what stands before its slash; these are
# the sections in order. The last holds some hundred bars, and opens by a click.
SECTIONS = ("log_likelihood_gap", "params", "n_iter", "Model metrics", "log_likelihood", "fit")
CLOSED = "statistics"


# The table's columns that are always there, under MLflow's own names.
RUN_NAME, CREATED, DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
CHARACTER, MARGIN = 6.5, 24  # pixels
NARROWEST = 80
LONGEST = 40  # characters of the overrides that the table shows


@dataclass(frozen=True)
class View:
    """A saved view: `value` is that of the experiment's tag `tag`."""

    key: str
    value: str

    @property
    def tag(self) -> str:
        """The tag that holds the view."""
        return f"mlflow.sharedViewState.{self.key}"

    @property
    def table(self) -> str:
        """What follows the address of the experiment's runs: the table in this view."""
        return f"{PLAIN}&viewStateShareKey={self.key}"

    @property
    def charts(self) -> str:
        """The charts of this view."""
        return f"{self.table}&compareRunsMode=CHART"


def make_view(cells: Sequence[Cell], overrides: Sequence[str] = ()) -> View:
    """Return the view for the runs of `cells`; what was overridden has a column, and its own view.

    An experiment's runs may come from several results folders, as the jobs of a multirun do:
    those without overrides keep the view without that column.
    """
    key, name = "em-convergence", "Convergence"
    if overrides:
        key, name = f"{key}-overrides", f"{name}, overrides"
    state = json.dumps(_state(cells, overrides), separators=(",", ":")).encode()
    packed = "deflate;" + base64.b64encode(zlib.compress(state, 9)).decode()
    # No clock readings: the same cells have the same tag.
    return View(key, json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": packed}))


def _state(cells: Sequence[Cell], overrides: Sequence[str]) -> dict[str, Any]:
    widths = {
        f"params.`{name}`": _width(name, *(str(getattr(cell, name)) for cell in cells))
        for name in _factors(cells)
    }
    widths |= {f"metrics.`{name}`": _width(name) for name in METRICS}
    if overrides:
        widths["params.`overrides`"] = _width("overrides", " ".join(overrides)[:LONGEST])
    sections = [
        {"uuid": name, "name": name, "display": name != CLOSED, "isReordered": True}
        for name in (*SECTIONS, CLOSED)
    ]
    charts = [_curve(f"log_likelihood_gap/{level}", "log") for level in ("median", "q10", "q90")]
    parameters = parameter_columns(max(cell.n_components for cell in cells))
    charts += [_curve(f"params/{name}", "linear") for name in parameters]
    return {
        "selectedColumns": list(widths),
        # What sets the cells apart first: MLflow's own order is metrics, then parameters.
        "columnOrder": [RUN_NAME, CREATED, *widths, DURATION],
        "columnWidths": {RUN_NAME: 172, CREATED: 138, **widths},
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,
        "compareRunSections": sections,
        "compareRunCharts": [*charts, _pictures()],
    }


def _width(*texts: str) -> int:
    return max(NARROWEST, MARGIN + round(CHARACTER * max(map(len, texts))))


def _factors(cells: Sequence[Cell]) -> list[str]:
    """Return what a row of the table says of its cell.

    An algorithm or a model that all cells share would take the place of a measure.
    """
    names = [name for name in ("mixture", "observed") if any(getattr(c, name) for c in cells)]
    names += ["sample_size", "init"]
    several = [n for n in ("algorithm", "model") if len({getattr(c, n) for c in cells}) > 1]
    return names + several


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
