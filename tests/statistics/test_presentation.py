"""Tables for people: what is chosen, rounding, and structure of the Markdown and the LaTeX."""

import dataclasses
import math
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.statistics.cells import convergence
from pipeline.statistics.latex import latex
from pipeline.statistics.presentation import (
    NOTE,
    Listing,
    markdown,
    rounded,
    tables,
    whole,
    whole_interval,
)
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
        (-0.0001, 0.01, "0.000 (0.010)"),
        (-6e-14, 1.2e-10, "0 (1.2e−10)"),
        (1.5e-9, 1e-9, "1.5e−09 (1.0e−09)"),
        (9.996e-9, 1e-10, "1.000e−08 (1.0e−10)"),
        (1e300, 1e298, "1.000e+300 (1.0e+298)"),
        (10001.0, math.nan, "10001"),
        (-12345.678, math.nan, "−12346"),
        (-0.0, math.nan, "0"),
        (1.23456e-5, math.nan, "1.235e−05"),
    ],
)
def test_the_value_ends_where_two_digits_of_its_error_do(value, mcse, text):
    assert rounded(value, mcse) == text


REALS = st.floats(allow_nan=False, allow_infinity=False)


@given(REALS, st.floats(min_value=1e-300, max_value=1e300))
def test_what_is_shown_is_within_half_a_unit_of_its_last_place(value, mcse):
    text = rounded(value, mcse).replace("−", "-")
    shown, error = (Decimal(part) for part in text.strip(")").split(" ("))
    # Two digits of the error; three where it is written in full: 321 is 320.
    assert abs(error / Decimal(mcse) - 1) <= Decimal("0.05")
    place = Decimal(f"{mcse:.1e}").as_tuple().exponent
    fine = max(place, Decimal(value).adjusted() - 14) if value else place  # digits of a float64
    assert abs(shown - Decimal(value)) <= Decimal(10) ** fine * Decimal("0.500001")
    assert shown or not text.startswith("-")


@pytest.mark.parametrize(
    ("count", "plain", "grouped"),
    [
        (10001.0, "10001", "10,001"),
        (12344.0, "12344", "12,344"),
        (1e6, "1000000", "1,000,000"),
        (7.0, "7", "7"),
        (math.inf, "∞", "∞"),
        (math.nan, "–", "–"),
    ],
)
def test_counts_are_whole(count, plain, grouped):
    assert (whole(count), whole(count, ",")) == (plain, grouped)


def test_quantiles_of_iterations_are_whole_as_their_intervals_are(study):
    table = convergence(*study).iloc[:1].copy()
    names = ["n_iter_median", "n_iter_q10", "n_iter_q90", "n_iter_median_low"]
    table[names] = [12344.0, 10001.0, 100000.0, 12000.0]
    table["n_iter_median_high"] = math.nan
    (row,) = listing(tables(table), "Iterations").rows
    assert row[1:5] == ("12344", "12000 to –", "10001", "100000")
    assert whole_interval(math.nan, math.nan) == "–"


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
    assert listing(found, "Estimates of mean_0").header[-2:] == ("coverage", "without SE")
    assert [row[-1] for row in listing(found, "Estimates of mean_0").rows] == ["0", "0"]
    distances = listing(found, "Distances")
    assert distances.header[2:] == (
        "total variation", "Hellinger", "Kullback-Leibler", "Wasserstein-1", "without",
    )  # fmt: skip
    assert distances.rows[1][2:] == ("0.25",) * 4 + ("1",)


def test_coverage_says_how_many_fits_it_leaves_out(study):
    """Four of the first cell's fits: one has no estimate, two of the others no standard error."""
    fits, plan = study
    wald = {f"se_{name}": 0.1 for name in fits if name.startswith(("weight", "mean", "scale"))}
    fits = fits.assign(**wald)
    fits.loc[[4, 5, 0], "se_mean_1"] = math.nan
    for name in ("mean_0", "mean_1"):  # of fits that lack the error of any parameter
        found = listing(tables(convergence(fits, plan)), f"Estimates of {name}")
        assert found.header[-1] == "without SE"
        assert [row[-1] for row in found.rows] == ["2", "0"]
    assert "coverage is over those of them with standard errors" in NOTE


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


# What a study may be called, and how LaTeX writes it.
HOSTILE = {
    "errors fall to 10⁻⁸ at n = 10⁵": r"errors fall to 10$^{-}$$^{8}$ at n = 10$^{5}$",
    "σ ≥ 1, Δ − 2 × Α": r"$\sigma$ $\geq$ 1, $\Delta$ $-$ 2 $\times$ $\mathrm{A}$",
    "χ² ± √½ x₁": r"$\chi$$^{2}$ $\pm$ $\sqrt{\ }$$\frac{1}{2}$ x$_{1}$",
    "Müller, Ragnarök, Dvořák": r"M\"{u}ller, Ragnar\"{o}k, Dvo\v{r}\'{a}k",
    "e\u0301 is é": r"\'{e} is \'{e}",
    "\\end{longtable} \\\\ & \\input{x}": (
        r"\textbackslash{}end\{longtable\} \textbackslash{}\textbackslash{} \& "
        r"\textbackslash{}input\{x\}"
    ),
    "50 % \n\n a^^5cb $": r"50 \% a\textasciicircum{}\textasciicircum{}5cb \$",
    "a\u2028b\x00\x7f\u202ec\u200bd": "a bcd",
    "漢字": "漢字",
}


@pytest.mark.parametrize(("title", "written"), HOSTILE.items())
def test_latex_writes_titles_with_commands(title, written):
    text = latex(title, [NASTY])
    assert rf"\caption{{{written}. 50 \%" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert len(body) == len(latex("plain", [NASTY]).splitlines()) - 2
    assert all(line.isascii() for line in body) or title == "漢字"


def test_what_pdflatex_refuses_is_named_on_top():
    """No command for them: the file says that it needs another engine, and no other file does."""
    assert "% pdflatex refuses 字 漢: take XeLaTeX" in latex("漢字", [NASTY])
    assert "XeLaTeX" not in latex("σ ≥ 10⁻⁸ Müller", [NASTY])


def test_every_character_of_the_projects_own_texts_has_a_command():
    texts = [path.read_text() for path in Path("conf").rglob("*.yaml")]
    texts += [path.read_text() for path in Path("pipeline").rglob("*.py")]
    own = {character for text in texts for character in text if not character.isascii()}
    assert {"⁸", "χ", "∞"} <= own
    own -= {"✓", "✗", "漢"}  # of a page's verdicts
    assert "XeLaTeX" not in latex("".join(sorted(own)), [NASTY])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX on this machine")
def test_latex_compiles(study, tmp_path):
    listings = [*tables(convergence(*study)), NASTY]
    text = "".join(latex(title, listings) for title in HOSTILE if title != "漢字")
    head = r"\documentclass{article}\usepackage{booktabs, longtable}\begin{document}"
    (tmp_path / "page.tex").write_text(f"{head}\n{text}\n\\end{{document}}\n", "utf-8")
    line = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
