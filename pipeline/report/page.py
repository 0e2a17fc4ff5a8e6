"""The page of an experiment: one self-contained HTML file from its plan, tables and figures."""

import base64
import hashlib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.console import counted
from pipeline.core.outcomes import ADVICE
from pipeline.plan import Plan
from pipeline.report.claims import claims_of, verdict_counts
from pipeline.report.environment import ENVIRONMENT
from pipeline.report.heading import changes, question_of
from pipeline.report.tables import comparison_tables, group_tables, slopes_table
from pipeline.statistics.presentation import MISSING, minus
from pipeline.tables import OUTCOMES

FACTORS = ("model", "init", "algorithm", "observed")
MOST_CELLS = 500  # in the tables
MOST_PAIRS = 500  # rows of a table of comparisons
LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"
# What decides the numbers of an experiment, of its statistics and of its pictures.
LOCKED = ("numpy", "numba", "scipy", "pandas", "matplotlib")


@dataclass(frozen=True)
class Picture:
    """A rendered figure: `image` is SVG or PNG bytes, `group` the heading it belongs under.

    Without an image the page links to `file`, a path from its own folder.
    """

    group: str
    title: str
    caption: str
    image: bytes
    file: str = ""

    @property
    def data_uri(self) -> str:
        """The image as text that an ``img`` can hold."""
        kind = "png" if self.image.startswith(b"\x89PNG") else "svg+xml"
        return f"data:image/{kind};base64,{base64.b64encode(self.image).decode('ascii')}"


@dataclass(frozen=True)
class PlayerPart:
    """A group's player: `data` is what `report.player.player` returned."""

    group: str
    name: str
    data: Mapping[str, Any]


@dataclass
class _Section:
    """A group of cells on the page: its player, pictures, and a place to link to."""

    title: str
    player: PlayerPart | None = None
    pictures: list[Picture] = field(default_factory=list)


def render_report(
    plan: Plan,
    tables: Mapping[str, pd.DataFrame],
    pictures: Sequence[Picture] = (),
    players: Sequence[PlayerPart] = (),
    remark: str = "",
) -> str:
    """Render the page.

    Parameters
    ----------
    plan
        Of the experiment.
    tables
        `convergence`, `claims`, `slopes` and `comparisons`, as in the files of these names.
    pictures
        In the order of the page; those of one group follow each other.
    players
        At most one for each group.
    remark
        What the page leaves out, and what was not drawn, for the reader.

    Returns
    -------
    str
        HTML that needs no other file and no network, and holds no date, path, run or duration: the
        same results give the same page.
    """
    convergence = tables["convergence"]
    claims = claims_of(tables["claims"], tables["slopes"])
    shown = plan.cells[:MOST_CELLS]
    compared = comparison_tables(tables["comparisons"], MOST_PAIRS)
    slopes = slopes_table(tables["slopes"])
    question, of_base = question_of(plan.question, plan.overrides)
    return ENVIRONMENT.get_template("report.html.jinja").render(
        plan=plan,
        changes=changes(plan.overrides),
        question=question,
        question_is_of_base=of_base,
        summary=_summary(convergence),
        claims=claims,
        claims_level=f"{100 * plan.config['claims_level']:g}",
        verdicts=verdict_counts(claims),
        mixtures=_mixtures(plan),
        settings=_settings(plan),
        sections=_sections(pictures, players),
        remark=remark,
        tables=group_tables(shown, convergence),
        cells_left_out=len(plan.cells) - len(shown),
        compared=compared,
        slopes=slopes,
        one_replicate=all(cell.replicates == 1 for cell in plan.cells),
        advice=[(outcome.name.lower().replace("_", " "), ADVICE[outcome]) for outcome in ADVICE],
        command=command(plan),
        lock=lock(LOCK),
    )


def _sections(pictures: Sequence[Picture], players: Sequence[PlayerPart]) -> list[_Section]:
    by_group: dict[str, _Section] = {}
    for player in players:
        by_group.setdefault(player.group, _Section(player.group)).player = player
    for picture in pictures:
        by_group.setdefault(picture.group, _Section(picture.group)).pictures.append(picture)
    return list(by_group.values())


def command(plan: Plan) -> str:
    """Return the command that makes the experiment again.

    A data file outside is named without its folder, which is a place on one machine.
    """
    overrides = list(plan.overrides)
    for observed in plan.config["observed"].values():
        path = str(observed["path"])
        if Path(path).is_absolute():
            overrides = [override.replace(path, Path(path).name) for override in overrides]
    words = [f"experiment={plan.experiment}", *overrides]
    return f"python -m pipeline {' '.join(shlex.quote(word) for word in words)}"


def lock(path: Path) -> str:
    """Describe the file that fixes all packages: 12 digits of its SHA-256, and who decides numbers.

    It is the project's, as it was when the page was made.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    found = dict(re.findall(r"^([\w-]+)==(\S+)", content.decode("utf-8", "replace"), re.MULTILINE))
    versions = ", ".join(f"{name} {found[name]}" for name in LOCKED if name in found)
    return f"{hashlib.sha256(content).hexdigest()[:12]} ({versions})"


def _numbers(values: Any) -> str:
    if isinstance(values, (list, tuple)):
        return ", ".join(minus(f"{value:.4g}") for value in values)
    return MISSING if values is None else str(values)


def _mixtures(plan: Plan) -> list[dict[str, str]]:
    parts = ("weights", "means", "scales", "allocation", "source")
    return [
        {"name": name} | {part: _numbers(mixture.get(part)) for part in parts}
        for name, mixture in plan.config["mixture"].items()
    ]


def _described(name: str, entry: Mapping[str, Any]) -> str:
    """Return a factor's entry in a line, without what is empty or repeats its name.

    A path is left out: it names a place on one machine.
    """
    described = ", ".join(
        f"{key.replace('_', ' ')} {_numbers(value)}"
        for key, value in entry.items()
        if value not in (None, "") and key != "path" and (key, value) != ("method", name)
    )
    return f"{name} ({described})" if described else name


def _settings(plan: Plan) -> list[tuple[str, str]]:
    """Return what was run, as name and value, in the order of the configuration's keys."""
    config = plan.config
    settings = [
        (factor, "; ".join(_described(name, entry) for name, entry in config[factor].items()))
        for factor in FACTORS
        if config[factor]
    ]
    schedule = config["schedule"]
    stop = schedule["stop"]
    rule = stop["rule"].replace("_", " ")
    tolerance = "" if stop["tolerance"] is None else f" at most {stop['tolerance']:g}"
    settings += [
        ("stopping rule", f"{rule}{tolerance}; at most {schedule['max_iter']:,} iterations"),
        ("recorded iterations", _numbers(schedule["record"])),
        ("recorded replicates", _numbers(schedule["record_replicates"])),
        ("sample sizes", ", ".join(dict.fromkeys(_size(c.sample_size) for c in plan.cells))),
        ("replicates", ", ".join(map(str, sorted({cell.replicates for cell in plan.cells})))),
        ("starts per replicate", ", ".join(map(str, sorted({c.starts for c in plan.cells})))),
        ("seed", str(config["seed"])),
    ]
    return settings


def _size(size: float) -> str:
    return "the population" if size == math.inf else f"{size:,.0f}"


def _summary(convergence: pd.DataFrame) -> str:
    """Return in a sentence how many fits there are and how they ended."""
    n_fits = int(convergence["n_fits"].sum())
    ends = [
        f"{count:,} {outcome.replace('_', ' ')}"
        for outcome in OUTCOMES
        if (count := int(convergence[f"n_{outcome}"].sum()))
    ]
    cells = counted(len(convergence), "cell")
    return f"{cells}, {counted(n_fits, 'fit')}. Outcomes: {', '.join(ends)}."
