"""Distances of the fitted from the true density, against closed forms and brute quadrature."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import erf, logsumexp, ndtr
from scipy.stats import norm

from pipeline.core.distances import distances
from pipeline.core.mixture import Parameters

NODES, MASSES = np.polynomial.legendre.leggauss(20)


def mixture(weights, means, scales):
    return Parameters(*(np.array(part, float) for part in (weights, means, scales)))


def distances_of(fitted, truth):
    """Return the four distances of one mixture (K,)."""
    found = distances(Parameters(*(part[None] for part in fitted)), truth)
    return np.array([values[0] for values in found])


def log_density(x, parameters):
    weights, means, scales = (part[:, None] for part in parameters)
    with np.errstate(divide="ignore"):
        terms = np.log(weights) + norm.logpdf(x.ravel(), means, scales)
    return logsumexp(terms, axis=0).reshape(x.shape)


def distribution(x, parameters):
    weights, means, scales = (part[:, None] for part in parameters)
    return (weights * ndtr((x.ravel() - means) / scales)).sum(axis=0).reshape(x.shape)


def density_difference(x, f, g):
    return np.exp(log_density(x, f)) - np.exp(log_density(x, g))


def distribution_difference(x, f, g):
    return distribution(x, f) - distribution(x, g)


def zeros(function, edges, f, g):
    """Return the zeros of a difference between neighbours of ``edges`` where its sign changes."""
    values = function(edges, f, g)
    changes = np.flatnonzero(values[1:] * values[:-1] < 0)

    def scalar(x):
        return function(np.array([x]), f, g)[0]

    return [brentq(scalar, edges[i], edges[i + 1], xtol=1e-15, rtol=1e-15) for i in changes]


def by_brute_quadrature(f, g):
    """Return the four distances by panels of a tenth of every scale, split at all zeros."""
    means, scales = np.concatenate([f.means, g.means]), np.concatenate([f.scales, g.scales])
    low, high = np.min(means - 12 * scales), np.max(means + 12 * scales)
    near = (means[:, None] + scales[:, None] * np.linspace(-12, 12, 241)).ravel()
    # Where the larger of two components far away changes, log f has a kink: many more panels.
    edges = np.union1d(near, np.linspace(low, high, 20_001))
    crossings = zeros(density_difference, edges, f, g)
    crossings += zeros(distribution_difference, edges, f, g)
    edges = np.union1d(edges, crossings)
    middles, halves = (edges[1:] + edges[:-1])[:, None] / 2, np.diff(edges)[:, None] / 2
    x, lengths = middles + halves * NODES, halves * MASSES
    f_log, g_log = log_density(x, f), log_density(x, g)
    f_x, g_x = np.exp(f_log), np.exp(g_log)
    # g (f / g - 1 - log(f / g)), the same on the whole as g log(g / f), without cancellation.
    t = f_log - g_log
    small = np.abs(t) < 1e-3
    t_small = np.where(small, t, 0.0)
    series = t_small**2 * (1 / 2 + t_small / 6 + t_small**2 / 24 + t_small**3 / 120)
    divergence = np.where(small, g_x * series, f_x - g_x - g_x * t)
    return np.array(
        [
            0.5 * np.sum(lengths * np.abs(f_x - g_x)),
            np.sqrt(0.5 * np.sum(lengths * (np.sqrt(f_x) - np.sqrt(g_x)) ** 2)),
            np.sum(lengths * divergence),
            np.sum(lengths * np.abs(distribution_difference(x, f, g))),
        ]
    )


CLAW = mixture([0.5] + [0.1] * 5, [0, -1, -0.5, 0, 0.5, 1], [1] + [0.1] * 5)
PAIRS = {
    "two and two": (mixture([0.4, 0.6], [0, 3], [1, 0.7]), mixture([0.5, 0.5], [0.2, 2.8], [1, 1])),
    "one and two": (mixture([1], [1.5], [2]), mixture([0.5, 0.5], [0, 3], [1, 1])),
    "three and one": (mixture([0.2, 0.3, 0.5], [-1, 0, 2], [1, 2, 0.3]), mixture([1], [0], [2])),
    "claw": (mixture([0.6, 0.4], [0.1, -0.1], [0.8, 0.5]), CLAW),
    "fitted claw": (CLAW, mixture([0.6, 0.4], [0.1, -0.1], [0.8, 0.5])),
    "scales 1 : 1e-4": (
        mixture([0.9, 0.1], [0, 0.5], [1, 1e-4]),
        mixture([0.8, 0.2], [0.1, 0.50003], [1.1, 2e-4]),
    ),
    "a spike that the truth does not have": (
        mixture([0.99, 0.01], [0, 0.3], [1, 1e-5]),
        mixture([1], [0], [1]),
    ),
    "means far apart": (
        mixture([0.3, 0.7], [0, 1000], [1, 2]),
        mixture([0.4, 0.6], [0.5, 1001], [1, 1.5]),
    ),
    "far apart, equal weights": (
        mixture([0.5, 0.5], [0, 1000], [1, 2]),
        # One moves to the right and one to the left: F = G, to the last bit, on the way between.
        mixture([0.5, 0.5], [0.5, 999], [1, 1.5]),
    ),
    # The logarithm of the fitted density has a kink of width 0.01 in the middle of the truth.
    "a truth between two components": (
        mixture([0.5, 0.5], [-50, 50], [1, 1]),
        mixture([1], [0.3], [30]),
    ),
    "near": (
        mixture([0.4, 0.6], [0, 3], [1, 0.7]),
        mixture([0.4 + 1e-5, 0.6 - 1e-5], [1e-5, 3], [1, 0.7 - 1e-5]),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_against_brute_quadrature(name):
    f, g = PAIRS[name]
    np.testing.assert_allclose(distances_of(f, g), by_brute_quadrature(f, g), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_any_mixtures_against_brute_quadrature(seed):
    generator = np.random.default_rng(seed)

    def drawn():
        k = generator.integers(1, 5)
        spread = 10 ** generator.uniform(-1, 2)
        return Parameters(
            generator.dirichlet(np.ones(k)),
            generator.normal(0, spread, k),
            10 ** generator.uniform(-2, 0.5, k),
        )

    f, g = drawn(), drawn()
    np.testing.assert_allclose(distances_of(f, g), by_brute_quadrature(f, g), rtol=1e-9)


def test_wasserstein_where_the_distribution_functions_are_equal_over_a_long_way():
    weights = [0.03798057766553257, 0.048274609747875806, 0.9137448125865917]
    f = mixture(
        weights,
        [-3581.1630242597416, -617.5729206931563, 730.015620410195],
        [0.12784529347562762, 0.028983488470932933, 0.010691627453541196],
    )
    g = mixture(
        weights,
        [-3581.1679273026175, -617.5760198396518, 730.0151789269515],
        [0.13459319281348503, 0.028835381667837345, 0.010928700477185525],
    )
    # By mpmath, with 30 digits.
    assert distances_of(f, g)[3] == pytest.approx(0.000814507259890566, abs=1e-15 * 5000)


@pytest.mark.parametrize("depth", [1e-3, 1e-5, 1e-7])
def test_two_crossings_between_two_nodes_are_found(depth):
    """The densities touch near 0.5, and the deeper one just comes out above the other."""
    f = mixture([1], [0], [1])
    x = np.linspace(0.0, 0.9, 200_001)

    def above(weight):
        g = mixture([1 - weight, weight], [0, 0.5], [1.1, 0.15])
        return -density_difference(x, f, g).min() - depth

    weight = brentq(above, 0.001, 0.2, xtol=1e-15)
    g = mixture([1 - weight, weight], [0, 0.5], [1.1, 0.15])
    edges = np.union1d(np.linspace(-12, 12, 4001), x)
    crossings = zeros(density_difference, edges, f, g)
    assert len(crossings) == 4
    places = np.concatenate([[-40.0], crossings, [40.0]])
    expected = 0.5 * np.abs(np.diff(distribution_difference(places, f, g))).sum()
    assert distances_of(f, g)[0] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("d", [1e-6, 1e-3, 0.5, 2.0, 10.0, 60.0, 1e4, 1e8])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_two_normals_of_one_scale_in_closed_form(d, scale):
    fitted, truth = mixture([1], [5 + d * scale], [scale]), mixture([1], [5], [scale])
    d = (fitted.means[0] - 5) / scale
    tv, hellinger, kl, wasserstein = distances_of(fitted, truth)
    absolute = 1e-15
    assert tv == pytest.approx(erf(d / np.sqrt(8)), rel=1e-9, abs=absolute)
    assert hellinger == pytest.approx(np.sqrt(-np.expm1(-d * d / 8)), rel=1e-9, abs=absolute)
    assert kl == pytest.approx(d * d / 2, rel=1e-9, abs=absolute)
    assert wasserstein == pytest.approx(d * scale, rel=1e-9, abs=absolute)


@pytest.mark.parametrize("ratio", [1e-4, 0.1, 0.99, 1.5, 30.0, 1e4])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_two_normals_of_two_scales_in_closed_form(ratio, shift):
    _, hellinger, kl, wasserstein = distances_of(
        mixture([1], [shift], [ratio]), mixture([1], [0], [1])
    )
    squares = 1 + ratio**2
    overlap = np.sqrt(2 * ratio / squares) * np.exp(-(shift**2) / (4 * squares))
    assert hellinger == pytest.approx(np.sqrt(1 - overlap), rel=1e-9)
    expected = np.log(ratio) + (1 + shift**2) / (2 * ratio**2) - 0.5
    assert kl == pytest.approx(expected, rel=1e-9)
    if shift == 0.0:
        assert wasserstein == pytest.approx(abs(1 - ratio) * np.sqrt(2 / np.pi), rel=1e-9)


def test_the_same_density_is_at_no_distance():
    for f, g in PAIRS.values():
        np.testing.assert_array_equal(distances_of(f, f), 0.0)
        np.testing.assert_array_equal(distances_of(g, g), 0.0)
    # Nor are labels, or a component in two parts: but for the rounding of sums.
    f = mixture([0.2, 0.3, 0.5], [-1, 0, 2], [1, 2, 0.3])
    turned = Parameters(*(part[[2, 0, 1]] for part in f))
    parts = mixture([0.2, 0.3, 0.25, 0.25], [-1, 0, 2, 2], [1, 2, 0.3, 0.3])
    none = mixture([0.2, 0.3, 0.5, 0.0], [-1, 0, 2, 9], [1, 2, 0.3, 0.1])
    for same in (turned, parts, none):
        np.testing.assert_allclose(distances_of(same, f), 0.0, atol=1e-13)


def test_a_component_without_weight_takes_no_part():
    f, g = PAIRS["two and two"]
    more = mixture([*f.weights, 0.0], [*f.means, 1.0], [*f.scales, 1e-3])
    np.testing.assert_allclose(distances_of(more, g), distances_of(f, g), rtol=1e-13)


def test_weights_are_divided_by_their_sum():
    f, g = PAIRS["one and two"]
    other = g._replace(weights=g.weights * (1 + 1e-9))
    np.testing.assert_allclose(distances_of(f, other), distances_of(f, g), rtol=1e-13)


@pytest.mark.parametrize("unit", [1e-100, 1.0, 1e100])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_units_and_origin_do_not_matter(offset, unit):
    f, g = PAIRS["three and one"]
    expected = distances_of(f, g)

    def moved(parameters):
        return Parameters(
            parameters.weights, (parameters.means + offset) * unit, parameters.scales * unit
        )

    found = distances_of(moved(f), moved(g))
    tolerance = 1e-12 if offset == 0.0 else 1e-6
    np.testing.assert_allclose(found[:3], expected[:3], rtol=tolerance)
    np.testing.assert_allclose(found[3], expected[3] * unit, rtol=tolerance)


def test_what_is_no_density_or_has_no_truth_is_missing():
    f, g = PAIRS["two and two"]
    batch = Parameters(*(np.tile(part, (6, 1)) for part in f))
    batch.means[0, 1], batch.scales[1, 0], batch.scales[2, 1] = np.nan, 0.0, np.inf
    batch.weights[3, 0], batch.scales[4, 1] = -0.1, 1e-20
    expected = distances_of(f, g)
    for values, value in zip(distances(batch, g), expected, strict=True):
        assert np.isnan(values[:5]).all()
        assert values[5] == value
    for values in distances(batch, None):
        assert values.shape == (6,) and np.isnan(values).all()


def test_a_fit_in_a_batch_has_the_bits_that_it_has_alone():
    generator = np.random.default_rng(4)
    batch = Parameters(
        generator.dirichlet(np.ones(3), 9),
        generator.normal(size=(9, 3)),
        generator.uniform(0.1, 2, (9, 3)),
    )
    found = np.array(distances(batch, CLAW))
    for i in range(9):
        one = distances_of(Parameters(*(part[i] for part in batch)), CLAW)
        np.testing.assert_array_equal(found[:, i], one)


PROGRAM = """
import numpy as np
from pipeline.core.distances import distances
from pipeline.core.mixture import Parameters

parts = [.4, .6, 1.0], [0.0, 3.0, 1.0], [1.0, .7, .01]
batch = Parameters(*(np.array([part, part[::-1]]) for part in parts))
truth = Parameters(*(np.array(part) for part in ([.5, .5], [.2, 2.5], [1.0, 1.0])))
print([float(v).hex() for values in distances(batch, truth) for v in values])
"""


def test_every_instruction_set_gives_the_same_bits(bits_by_cpu):
    printed = bits_by_cpu(PROGRAM)
    assert len(set(printed.values())) == 1
    assert printed["host"].count("nan") == 0
