"""Small studies for tests: a real plan, with fits and traces by an independent, plain EM."""

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import norm

from pipeline.config import compose
from pipeline.plan import Cell, Plan, write_plan
from pipeline.planning import make_plan
from pipeline.stages.aggregate import aggregate
from pipeline.statistics.cells import convergence
from pipeline.tables import FITS, TRACES, part_name, part_writer

Theta = tuple[np.ndarray, np.ndarray, np.ndarray]  # weights, means, scales, each (n_components,)


@dataclass(frozen=True)
class Study:
    """What the stages before the report would have made."""

    plan: Plan
    samples: dict[str, np.ndarray]  # by data set id, shape (replicates, n)
    fits: pd.DataFrame
    traces: pd.DataFrame

    @property
    def convergence(self) -> pd.DataFrame:
        """One row per cell."""
        return convergence(self.fits, self.plan)


def make_study(*overrides: str) -> Study:
    """Compose a configuration and fit it: models with free or equal weights, all else free."""
    plan, _ = make_plan(compose(overrides))
    samples = {data.id: _sample(plan, data) for data in plan.data_sets}
    fits, traces = [], []
    for cell in plan.cells:
        for replicate in range(cell.replicates):
            points = samples[cell.data_set][replicate]
            for start in range(cell.starts):
                rows, outcome, order = _trajectory(plan, cell, points, replicate, start)
                keys = {"cell": cell.id, "replicate": replicate, "start": start}
                traces += [keys | row for row in _recorded(plan, rows, replicate)]
                row = _fit_row(plan, cell, points, keys, rows, outcome)
                fits.append(row | {"relabelled": _relabelled(plan, cell, order)})
    return Study(plan, samples, _table(fits, plan), _table(traces, plan))


def write_study(study: Study, folder: Path) -> None:
    """Lay a study out as the results folder that the stages before the report leave."""
    write_plan(study.plan, folder)
    for data in study.plan.data_sets:
        if data.file is not None:
            path = folder / data.file
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, study.samples[data.id])
    write_tables(study.plan, study.fits, study.traces, folder)
    aggregate(folder)


def write_tables(plan: Plan, fits: pd.DataFrame, traces: pd.DataFrame, folder: Path) -> None:
    """Write fits and traces as the stage fit does, whatever columns they have."""
    for name, table in ((FITS, fits), (TRACES, traces)):
        for index, cell in enumerate(plan.cells):
            rows = pa.Table.from_pandas(table[table["cell"] == cell.id], preserve_index=False)
            rows = rows.replace_schema_metadata()
            with part_writer(folder / name / part_name(index, cell), rows.schema, cell) as add:
                add(rows)


def _sample(plan: Plan, data: Any) -> np.ndarray:
    shape = (data.replicates, data.sample_size)
    random = np.random.default_rng(int(data.key[:8], 16))
    if data.mixture is None:
        return random.normal(size=shape)
    mixture = plan.config["mixture"][data.mixture]
    component = random.choice(len(mixture["weights"]), size=shape, p=mixture["weights"])
    means, scales = np.array(mixture["means"]), np.array(mixture["scales"])
    return random.normal(means[component], scales[component])


def _log_likelihood(points: np.ndarray, theta: Theta) -> float:
    weights, means, scales = theta
    return float(np.log(norm.pdf(points[:, None], means, scales) @ weights).sum())


def _em_map(points: np.ndarray, theta: Theta, equal_weights: bool) -> Theta:
    weights, means, scales = theta
    responsibilities = weights * norm.pdf(points[:, None], means, scales)
    responsibilities /= responsibilities.sum(axis=1, keepdims=True)
    counts = responsibilities.sum(axis=0)
    means = responsibilities.T @ points / counts
    squares = responsibilities * (points[:, None] - means) ** 2
    weights = weights if equal_weights else counts / len(points)
    return weights, means, np.sqrt(squares.sum(axis=0) / counts)


def _trajectory(
    plan: Plan, cell: Cell, points: np.ndarray, replicate: int, start: int
) -> tuple[list[dict[str, Any]], str, list[int]]:
    schedule = plan.config["schedule"]
    equal = plan.config["model"][cell.model]["weights"] == "equal"
    k = cell.n_components
    random = np.random.default_rng([int(cell.start_key[:8], 16), replicate, start])
    theta: Theta = (np.full(k, 1.0 / k), random.choice(points, k, False), np.full(k, points.std()))
    thetas, outcome = [theta], "max_iter"
    while len(thetas) <= schedule["max_iter"]:
        theta = _em_map(points, theta, equal)
        if not (theta[2] > 1e-6 * points.std()).all():
            outcome = "degenerate_scale"
            break
        change = _change(theta, thetas[-1])
        thetas.append(theta)
        if schedule["stop"]["rule"] == "map_residual" and change <= schedule["stop"]["tolerance"]:
            outcome = "converged"
            break
    order = _matched(plan, cell, thetas[-1])
    rows = [
        {
            "iteration": t,
            "map_evaluations": t,
            "log_likelihood": _log_likelihood(points, theta),
            "map_residual": _change(thetas[t - 1], theta) if t else np.nan,
            **_named(theta, order),
        }
        for t, theta in enumerate(thetas)
    ]
    return rows, outcome, order


def _change(one: Theta, other: Theta) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def _relabelled(plan: Plan, cell: Cell, order: list[int]) -> bool | None:
    truth = plan.truth(cell)
    matched = truth is not None and len(truth.means) == cell.n_components
    return order != sorted(order) if matched else None


def _matched(plan: Plan, cell: Cell, theta: Theta) -> list[int]:
    truth = plan.truth(cell)
    if truth is None or len(truth.means) != cell.n_components:
        return list(np.argsort(theta[1], kind="stable"))
    orders = permutations(range(cell.n_components))
    return list(min(orders, key=lambda order: np.abs(theta[1][list(order)] - truth.means).sum()))


def _named(theta: Theta, order: list[int]) -> dict[str, float]:
    return {
        f"{part}_{place}": float(values[k])
        for part, values in zip(("weight", "mean", "scale"), theta, strict=True)
        for place, k in enumerate(order)
    }


def _recorded(plan: Plan, rows: list[dict[str, Any]], replicate: int) -> list[dict[str, Any]]:
    schedule = plan.config["schedule"]
    kept = schedule["record_replicates"]
    if kept != "all" and replicate >= kept:
        return [rows[0], rows[-1]]
    if schedule["record"] == "geometric":
        wanted = {0, *np.unique(np.round(2 ** (np.arange(160) / 8)).astype(int)).tolist()}
        return [row for row in rows if row["iteration"] in wanted or row is rows[-1]]
    return rows


def _fit_row(
    plan: Plan,
    cell: Cell,
    points: np.ndarray,
    keys: dict[str, Any],
    rows: list[dict[str, Any]],
    outcome: str,
) -> dict[str, Any]:
    last = {key: value for key, value in rows[-1].items() if key != "iteration"}
    factors = ("mixture", "observed", "model", "sample_size", "init", "algorithm")
    truth = plan.truth(cell)
    return {
        "cell": cell.id,
        **{factor: getattr(cell, factor) for factor in factors},
        **keys,
        "fit_id": f"{cell.id}-r{keys['replicate']}-s{keys['start']}",
        "outcome": outcome,
        "n_iter": rows[-1]["iteration"],
        "map_evaluations": last.pop("map_evaluations"),
        "log_likelihood": last.pop("log_likelihood"),
        "map_residual": last.pop("map_residual"),
        "log_likelihood_start": rows[0]["log_likelihood"],
        "log_likelihood_truth": np.nan if truth is None else _log_likelihood(points, truth),
        **last,
        "sample_scale": points.std(),
        "rate_observed": np.nan,
        "rate_theory": _rate(rows) if outcome == "converged" else np.nan,
        "compression_error_bound": 0.0,
    }


def _rate(rows: list[dict[str, Any]]) -> float:
    """Return the factor by which the last iteration shrank the map residual."""
    steps = [row["map_residual"] for row in rows[-2:]]
    return steps[1] / steps[0] if len(rows) > 2 else np.nan


def _table(rows: list[dict[str, Any]], plan: Plan) -> pd.DataFrame:
    """Put the columns in the contract's order, those of absent components missing."""
    table = pd.DataFrame(rows)
    parameters = [
        f"{part}_{k}" for part in ("weight", "mean", "scale") for k in range(plan.n_components)
    ]
    rates = ("relabelled", "sample_scale", "rate_observed", "rate_theory", "map_residual")
    rates = [name for name in (*rates, "compression_error_bound") if name in table]
    before = [name for name in table.columns if name not in {*parameters, *rates}]
    table = table.reindex(columns=[*before, *parameters, *rates])
    texts = ("cell", "mixture", "observed", "model", "init", "algorithm", "fit_id", "outcome")
    return table.astype({name: "str" for name in texts if name in table})
