"""The ground truths under ``conf/mixture``: well formed, and what their sources say they are."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import norm

FOLDER = Path(__file__).parents[1] / "conf" / "mixture"
FILES = sorted(FOLDER.glob("*.yaml"))


def load(stem):
    """Read the one mixture that a file holds."""
    return yaml.safe_load((FOLDER / f"{stem}.yaml").read_text())[stem]


def arrays(stem):
    """Weights, means and scales, each of shape (n_components,)."""
    mixture = load(stem)
    return tuple(np.array(mixture[key]) for key in ("weights", "means", "scales"))


def marron_wand(number):
    """Weights, means and scales of the Marron-Wand density of that number."""
    (path,) = FOLDER.glob(f"marron_wand_{number:02d}_*.yaml")
    return arrays(path.stem)


def density(x, weights, means, scales):
    return norm.pdf(x[:, None], means, scales) @ weights


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_holds_one_valid_mixture_under_its_own_name(path):
    content = yaml.safe_load(path.read_text())
    assert list(content) == [path.stem]
    mixture = content[path.stem]
    assert set(mixture) == {"weights", "means", "scales", "allocation", "source"}
    assert mixture["allocation"] in {"multinomial", "proportional"}
    assert mixture["source"]
    for key in ("weights", "means", "scales"):
        assert all(type(value) is float for value in mixture[key])  # a bare 1e-5 would be text
        assert np.isfinite(mixture[key]).all()
    assert len(mixture["weights"]) == len(mixture["means"]) == len(mixture["scales"])
    assert abs(sum(mixture["weights"]) - 1.0) < 1e-12
    assert min(mixture["weights"]) > 0.0
    assert min(mixture["scales"]) > 0.0


def test_notebook_is_the_notebooks_truth():
    mixture = load("notebook")
    assert mixture["weights"] == [0.5, 0.5]
    assert mixture["means"] == [0.0, 2.0]
    assert mixture["scales"] == [2.0, 1.0]
    assert mixture["allocation"] == "proportional"


# Marron & Wand (1992), Table 1, over a common denominator: (weights, means, scales), each a
# denominator and integers.
TABLE_1 = {
    1: ((1, [1]), (1, [0]), (1, [1])),
    2: ((5, [1, 1, 3]), (12, [0, 6, 13]), (9, [9, 6, 5])),
    3: (
        (8, [1] * 8),
        (729, [0, -729, -1215, -1539, -1755, -1899, -1995, -2059]),
        (2187, [2187, 1458, 972, 648, 432, 288, 192, 128]),
    ),
    4: ((3, [2, 1]), (1, [0, 0]), (10, [10, 1])),
    5: ((10, [1, 9]), (1, [0, 0]), (10, [10, 1])),
    6: ((2, [1, 1]), (1, [-1, 1]), (3, [2, 2])),
    7: ((2, [1, 1]), (2, [-3, 3]), (2, [1, 1])),
    8: ((4, [3, 1]), (2, [0, 3]), (3, [3, 1])),
    9: ((20, [9, 9, 2]), (5, [-6, 6, 0]), (20, [12, 12, 5])),
    10: ((10, [5, 1, 1, 1, 1, 1]), (2, [0, -2, -1, 0, 1, 2]), (10, [10, 1, 1, 1, 1, 1])),
    11: (
        (700, [343, 343] + [2] * 7),
        (2, [-2, 2, -3, -2, -1, 0, 1, 2, 3]),
        (300, [200, 200] + [3] * 7),
    ),
    12: ((62, [31, 16, 8, 4, 2, 1]), (2, [0, -3, -1, 1, 3, 5]), (40, [40, 16, 8, 4, 2, 1])),
    13: (
        (300, [138, 138, 1, 1, 1, 7, 7, 7]),
        (2, [-2, 2, -1, -2, -3, 1, 2, 3]),
        (300, [200, 200, 3, 3, 3, 21, 21, 21]),
    ),
    14: (
        (63, [32, 16, 8, 4, 2, 1]),
        (21, [-31, 17, 41, 53, 59, 62]),
        (63, [32, 16, 8, 4, 2, 1]),
    ),
    15: ((21, [6, 6, 6, 1, 1, 1]), (7, [-15, -3, 9, 16, 18, 20]), (21, [6, 6, 6, 1, 1, 1])),
}


@pytest.mark.parametrize("number", TABLE_1)
def test_marron_wand_is_table_1_to_the_last_bit(number):
    for values, (denominator, numerators) in zip(marron_wand(number), TABLE_1[number], strict=True):
        assert values.tolist() == [float(Fraction(top, denominator)) for top in numerators]


# As the names have it: every talon of a claw and every tooth of a comb is a mode (the bodies of the
# double claws peak where a talon stands).
MODES = [1, 1, 1, 1, 1, 2, 2, 2, 3, 5, 7, 5, 6, 6, 6]


@pytest.mark.parametrize("number", TABLE_1)
def test_marron_wand_has_a_mode_at_every_talon_and_tooth(number):
    x = np.arange(-4.0, 4.0, 0.0005) + 0.0001  # the narrowest scale is 0.01
    slope = np.sign(np.diff(density(x, *marron_wand(number))))
    assert np.sum((slope[:-1] > 0) & (slope[1:] < 0)) == MODES[number - 1]


@pytest.mark.parametrize("number", TABLE_1)
def test_marron_wand_lies_on_minus_three_to_three(number):
    """The paper gives all fifteen a common plotting range of -3 to 3."""
    weights, means, scales = marron_wand(number)
    edges = norm.cdf([[-3.0], [3.0]], means, scales) @ weights
    assert edges[1] - edges[0] > 0.99


@pytest.mark.parametrize("number", [14, 15])
def test_combs_tile_the_range_by_three_scale_teeth(number):
    _, means, scales = marron_wand(number)
    left, right = means - 3 * scales, means + 3 * scales
    np.testing.assert_allclose(np.r_[left, 3.0], np.r_[-3.0, right], rtol=0, atol=1e-14)


def test_skewed_unimodal_is_marrons_own_program_up_to_location_and_scale():
    """Marron's published parameter file has #2 as N(-.3, 1.2^2), N(.3, .8^2), N(1, (2/3)^2)."""
    _, means, scales = marron_wand(2)
    np.testing.assert_allclose(1.2 * means - 0.3, [-0.3, 0.3, 1.0], rtol=0, atol=1e-15)
    np.testing.assert_allclose(1.2 * scales, [1.2, 0.8, 2 / 3], rtol=1e-15)


@pytest.mark.parametrize("number", [1, 4, 5, 6, 7, 9, 10, 11])
def test_symmetric_densities_are_symmetric(number):
    x = np.linspace(0.0, 3.0, 301)
    parameters = marron_wand(number)
    np.testing.assert_allclose(density(x, *parameters), density(-x, *parameters), rtol=1e-12)


@pytest.mark.parametrize("number", [2, 3, 8, 12, 13, 14, 15])
def test_skewed_densities_are_skewed(number):
    weights, means, scales = marron_wand(number)
    centred = means - weights @ means
    third = weights @ (centred**3 + 3 * centred * scales**2)
    second = weights @ (centred**2 + scales**2)
    assert abs(third) / second**1.5 > 0.01


@pytest.mark.parametrize(
    ("name", "coefficient"),
    [("overlap_low", 0.0455), ("overlap_medium", 0.1336), ("overlap_high", 0.3173)],
)
def test_overlap_coefficient_is_the_stated_one(name, coefficient):
    weights, means, scales = arrays(name)
    assert weights.tolist() == [0.5, 0.5]
    x = np.linspace(-12.0, 12.0, 240_001)
    overlap = np.trapezoid(norm.pdf(x[:, None], means, scales).min(axis=1), x)
    assert abs(overlap - coefficient) < 5e-5 + 1e-8
    assert f"= {coefficient}" in (FOLDER / f"{name}.yaml").read_text()
