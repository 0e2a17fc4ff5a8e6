"""Tables for people: what is chosen, rounding, and structure of the Markdown and the LaTeX."""

import dataclasses
import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from pipeline.statistics.cells import convergence
from pipeline.statistics.presentation import Listing, latex, markdown, rounded, tables
from tests.statistics.test_cells import cell, fits_of, plan_of, random_fits

DISTANCES = ["total_variation", "hellinger", "kullback_leibler", "wasserstein_1"]
# A row of a Markdown table: bars that are not escaped.
BAR = re.compile(r"(?<!\\)\|")


@pytest.fixture
def study():
    plan = plan_of(
        cell("a", replicates=6, sample_size=40),
        dataclasses.replace(cell("b", replicates=6, sample_size=math.inf), init="kmeans_pp"),
    )
    rng = np.random.default_rng(4)
    fits = fits_of(plan, mean_0=rng.normal(-1, 0.1, 12), mean_1=rng.normal(2, 0.1, 12))
    fits.loc[3, "outcome"] = "max_iter"
    fits.loc[4, ["mean_0", "log_likelihood"]] = math.nan
    return fits, plan


def listing(found, start):
    (only,) = [each for each in found if each.caption.startswith(start)]
    return only


def test_columns_are_few_and_chosen(study):
    found = tables(convergence(*study))
    outcomes = listing(found, "Outcomes")
    labels = ("n", "init")  # what varies
    ends = ("converged", "max iter")  # what occurs; no estimate is reported in any case
    assert outcomes.header == (
        *labels, "fits", *ends, "no finite iterate", "relabelled", "converged share",
        "reached reference",
    )  # fmt: skip
    assert "last finite iterate" in outcomes.note
    assert [row[:7] for row in outcomes.rows] == [
        ("40", "random_points", "6", "5", "1", "1", outcomes.rows[0][6]),
        ("∞", "kmeans_pp", "6", "6", "0", "0", outcomes.rows[1][6]),
    ]
    table = convergence(*study)
    share, mcse = (table[f"reached_reference_share{end}"].iloc[0] for end in ("", "_mcse"))
    assert outcomes.rows[0][-1] == rounded(share, mcse)
    # The fixed parameters have no error to show.
    assert [each.caption for each in found[2:]] == ["Estimates of mean_0", "Estimates of mean_1"]
    assert found[2].header == (*labels, "truth", "bias", "empirical SE", "RMSE")
    assert all(len(each.header) <= 10 for each in found)


def test_values_are_rounded_to_their_error(study):
    table = convergence(*study)
    row = listing(tables(table), "Estimates of mean_0").rows[0]
    numbers = table.iloc[0]
    assert row[2] == "−1"
    for place, name in ((3, "bias"), (4, "empirical_se"), (5, "rmse")):
        value, mcse = numbers[f"{name}_mean_0"], numbers[f"{name}_mean_0_mcse"]
        assert row[place] == rounded(value, mcse)
        shown, error = (float(x) for x in re.findall(r"[\d.]+", row[place]))
        assert abs(shown - abs(value)) <= 0.05 * mcse and abs(error - mcse) <= 0.05 * mcse


@pytest.mark.parametrize(
    ("value", "mcse", "text"),
    [
        (12345.678, 321, "12350 (320)"),
        (-12344.9, 996, "−12300 (1000)"),  # two digits of 996 are 1.0e3
        (12345.678, 95.4, "12346 (95)"),
        (12345.678, 99.7, "12350 (100)"),
        (123, 45678, "0 (46000)"),
        (0.1249, 0.0996, "0.12 (0.10)"),
        (1234567890.0, 1234567.0, "1.2346e+09 (1.2e+06)"),
        (0.123456789012, 1.23e-10, "0.12345678901 (1.2e−10)"),
        (0.0, 1.2e-10, "0 (1.2e−10)"),
    ],
)
def test_the_value_ends_where_two_digits_of_its_error_do(value, mcse, text):
    assert rounded(value, mcse) == text


def test_iterations_have_an_interval_and_their_cost_an_error(study):
    table = convergence(*study)
    found = listing(tables(table), "Iterations")
    place = {name: found.header.index(name) for name in found.header}
    for row, (_, numbers) in zip(found.rows, table.iterrows(), strict=True):
        low, high = (f"{numbers[f'n_iter_median_{end}']:.0f}" for end in ("low", "high"))
        shown = row[place["its 95 % interval"]]
        assert shown == f"{low} to {high}".replace("inf", "∞").replace("nan", "–")
        ratio, mcse = (numbers[f"expected_running_time{end}"] for end in ("", "_mcse"))
        assert row[place["evaluations per convergence"]] == rounded(ratio, mcse)
    assert any(row[place["its 95 % interval"]].split()[0].isdigit() for row in found.rows)
    fits, plan = study
    never = listing(tables(convergence(fits.assign(outcome="max_iter"), plan)), "Iterations")
    assert never.rows[0][place["its 95 % interval"]] == "–"
    assert never.rows[0][place["evaluations per convergence"]] == "∞"


def test_coverage_and_distances_are_shown_where_they_are(study):
    fits, plan = study
    wald = {f"se_{name}": 0.1 for name in fits if name.startswith(("weight", "mean", "scale"))}
    fits = fits.assign(**wald, **dict.fromkeys(DISTANCES, 0.25))
    fits.loc[7, "hellinger"] = math.nan
    found = tables(convergence(fits, plan))
    assert listing(found, "Estimates of mean_0").header[-1] == "coverage"
    distances = listing(found, "Distances")
    assert distances.header[2:] == (
        "total variation", "Hellinger", "Kullback-Leibler", "Wasserstein-1", "without",
    )  # fmt: skip
    assert distances.rows[1][2:] == ("0.25",) * 4 + ("1",)


def test_observed_data_one_replicate_and_missing_labels():
    plan = plan_of(cell("real", starts=3, observed="galaxies"), cell("drawn", starts=3))
    found = tables(convergence(random_fits(plan), plan))
    outcomes = listing(found, "Outcomes")
    assert outcomes.header[:2] == ("mixture", "observed")
    assert [row[:2] for row in outcomes.rows] == [("–", "galaxies"), ("pair", "–")]
    place = outcomes.header.index("relabelled")
    assert outcomes.rows[0][place] == "–" and outcomes.rows[1][place].isdigit()
    real = plan_of(cell("real", starts=3, observed="galaxies"))
    assert "relabelled" not in tables(convergence(random_fits(real), real))[0].header
    estimates = listing(found, "Estimates of mean_0").rows
    assert estimates[0][2:] == ("–",) * 4
    assert "(" not in estimates[1][3] and estimates[1][4] == "–"  # no error from one replicate
    alone = plan_of(cell("only", replicates=3))
    assert listing(tables(convergence(random_fits(alone), alone)), "Out").header[0] == "mixture"
    assert tables(convergence(random_fits(alone), alone).iloc[:0]) == []


NASTY = Listing(
    "50 % of a_b & c|d #1 {x} $y$ ~ ^ \\ <z>",
    ("n_1 & |", "value %"),
    (("a_b|c", "−0.12 (0.03)"), ("d\ne", "–"), ("∞ *[x]* `y`", "5"), ("*x]", "1")),
    1,
    "100 % of them_all.",
)


def test_markdown_has_cells_where_they_belong_and_escapes_the_rest():
    text = markdown("A_title | of & things", [NASTY])
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 6 and r"100 % of them\_all." in lines
    assert {len(BAR.findall(row)) for row in rows} == {3}
    assert len({len(row) for row in rows}) == 1  # aligned as text
    assert re.fullmatch(r"\| :-+ \| -+: \|", rows[1])
    assert rows[2].split(" | ")[0].strip("| ") == r"a\_b\|c"
    assert "d e" in rows[3] and "–" in rows[3]
    assert r"∞ \*\[x\]\* \`y\`" in rows[4]
    assert r"# A\_title \| of \& things" in lines
    assert text.endswith("\n") and "\n\n\n" not in text


def test_latex_is_balanced_and_escaped():
    text = latex("A_title", [NASTY, NASTY])
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    for name in ("longtable",):
        assert body.count(rf"\begin{{{name}}}") == body.count(rf"\end{{{name}}}") == 2
    for rule, times in (("toprule", 4), ("midrule", 4), ("bottomrule", 2)):
        assert body.count(rf"\{rule}") == times
    plain = re.sub(r"\\[&%$#_{}]", "", body)  # what is escaped
    assert not re.search(r"[%#_~^<>|]", plain)
    depth = np.cumsum([(c == "{") - (c == "}") for c in plain])
    assert depth.min() == 0 and depth[-1] == 0
    assert plain.count("$") % 2 == 0
    rows = [line for line in plain.splitlines() if line.endswith(r"\\") and "caption" not in line]
    assert len(rows) == 2 * (2 + 4)
    assert {row.count("&") for row in rows} == {1}
    assert r"a\_b\textbar{}c & $-$0.12 (0.03) \\" in text
    assert r"d e & -- \\" in text
    # A bracket or a star after the end of a row would be taken for an option of it.
    assert not re.search(r"\\\\\s*[*\[]", text)
    assert r"{*}x{]} & 1 \\" in text
    assert r"50 \% of a\_b \& c\textbar{}d \#1 \{x\} \$y\$ \textasciitilde{}" in text
    assert text.count(r"100 \% of them\_all. In brackets") == 2
    assert text.isascii() or not re.search("[–−∞]", body)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX on this machine")
def test_latex_compiles(study, tmp_path):
    text = latex("A_title & more", [*tables(convergence(*study)), NASTY])
    head = r"\documentclass{article}\usepackage{booktabs, longtable}\begin{document}"
    (tmp_path / "page.tex").write_text(f"{head}\n{text}\n\\end{{document}}\n", "utf-8")
    line = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
