"""AIC, BIC and ICL against their definitions, scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.special import logsumexp, xlogy
from scipy.stats import norm
from sklearn.mixture import GaussianMixture

from pipeline.core import criteria as module
from pipeline.core.criteria import assignment_entropies, criteria, free_parameters
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model


def drawn(n_fits, n_components, seed=1):
    rng = np.random.default_rng(seed)
    return Parameters(
        rng.dirichlet(np.ones(n_components), n_fits),
        rng.normal(0.0, 2.0, (n_fits, n_components)),
        rng.uniform(0.3, 2.0, (n_fits, n_components)),
    )


def entropy_by_scipy(points, weights, means, scales):
    log_densities = np.log(weights) + norm.logpdf(points[:, None], means, scales)
    responsibilities = np.exp(log_densities - logsumexp(log_densities, axis=1, keepdims=True))
    return -xlogy(responsibilities, responsibilities).sum()


@pytest.mark.parametrize(
    ("model", "d"),
    [
        (make_model(1), 2),
        (make_model(3), 8),
        (make_model(3, weights="equal"), 6),
        (make_model(3, weights=[0.2, 0.3, 0.5]), 6),
        (make_model(3, scales="shared"), 6),
        (make_model(3, scales=1.0), 5),
        (make_model(2, weights="equal", means="symmetric", scales=1.0), 1),
        (make_model(2, means="symmetric", scales="shared"), 3),
    ],
)
def test_what_is_estimated_is_counted(model, d):
    assert free_parameters(model) == d


@pytest.mark.parametrize("n", [1, 7, 8, 9, 64 * 8 + 3, 1024 * 8 + 64 * 8 + 13])
@pytest.mark.parametrize("n_components", [1, 2, 3, 7])
def test_the_entropy_is_the_responsibilities(n, n_components):
    rng = np.random.default_rng(n)
    points, parameters = rng.normal(0.0, 3.0, (2, n)), drawn(6, n_components)
    expected = [
        entropy_by_scipy(points[f // 3], *(part[f] for part in parameters)) for f in range(6)
    ]
    got = assignment_entropies(points, parameters)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13 * n)


def test_chunks_and_pools_change_nothing_but_the_rounding(monkeypatch):
    points, parameters = np.random.default_rng(3).normal(size=(2, 5000)), drawn(4, 3)
    whole = assignment_entropies(points, parameters)
    monkeypatch.setattr(module, "CHUNK", 1024)
    chunked = assignment_entropies(points, parameters)
    np.testing.assert_allclose(chunked, whole, rtol=1e-13)

    def backwards(function, items):
        return reversed([function(item) for item in reversed(list(items))])

    np.testing.assert_array_equal(assignment_entropies(points, parameters, backwards), chunked)


def test_components_that_share_every_point_have_log_2_a_point():
    twins = Parameters(*(np.array([[value, value]]) for value in (0.5, 1.0, 2.0)))
    points = np.linspace(-50.0, 50.0, 101)[None]
    np.testing.assert_allclose(assignment_entropies(points, twins), [101 * np.log(2.0)], rtol=1e-14)


def test_components_a_thousand_scales_apart_have_no_entropy():
    apart = Parameters(np.array([[0.5, 0.5]]), np.array([[0.0, 1e3]]), np.array([[1.0, 1e-2]]))
    points = np.array([[0.0, 1.0, 1e3, -2.0, 999.99, 1e6, -1e6, 0.5, 0.1]])
    assert 0.0 <= assignment_entropies(points, apart)[0] < 1e-100


@pytest.mark.parametrize("offset", [0.0, 1e8])
@pytest.mark.parametrize("unit", [1e-100, 1.0, 1e100])
def test_units_and_origin_do_not_matter(offset, unit):
    points, parameters = np.random.default_rng(4).normal(size=(1, 100)), drawn(1, 3)
    expected = assignment_entropies(points, parameters)
    moved = Parameters(
        parameters.weights, (parameters.means + offset) * unit, parameters.scales * unit
    )
    got = assignment_entropies((points + offset) * unit, moved)
    np.testing.assert_allclose(got, expected, rtol=1e-12 if offset == 0.0 else 1e-6)


def test_a_component_without_weight_takes_no_part():
    points, two = np.random.default_rng(5).normal(size=(1, 50)), drawn(1, 2)
    three = Parameters(
        np.array([[*two.weights[0], 0.0]]),
        np.array([[*two.means[0], 0.0]]),
        np.array([[*two.scales[0], 1.0]]),
    )
    np.testing.assert_allclose(
        assignment_entropies(points, three), assignment_entropies(points, two), rtol=1e-13
    )


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e400])
def test_what_is_no_mixture_has_no_entropy(part, bad):
    parameters = drawn(2, 2)
    parameters[part][1, 0] = bad
    got = assignment_entropies(np.zeros((1, 9)), parameters)
    assert np.isfinite(got[0])
    assert np.isnan(got[1])


def test_a_scale_of_zero_has_no_entropy():
    parameters = drawn(1, 2)
    parameters.scales[0, 1] = 0.0
    assert np.isnan(assignment_entropies(np.zeros((1, 9)), parameters)).all()


@pytest.mark.parametrize("n_components", [1, 2, 4])
def test_aic_and_bic_are_scikit_learns(n_components):
    points = np.random.default_rng(6).normal(size=(1, 300))
    points[:, :100] += 4.0
    theirs = GaussianMixture(n_components, covariance_type="spherical", random_state=0)
    theirs.fit(points.T)
    estimate = Parameters(
        theirs.weights_[None], theirs.means_.T, np.sqrt(theirs.covariances_)[None]
    )
    log_likelihood = np.array([theirs.score_samples(points.T).sum()])
    ours = criteria(points, estimate, log_likelihood, make_model(n_components))
    np.testing.assert_allclose(ours.aic, theirs.aic(points.T), rtol=1e-13)
    np.testing.assert_allclose(ours.bic, theirs.bic(points.T), rtol=1e-13)
    r = theirs.predict_proba(points.T)
    np.testing.assert_allclose(ours.icl, ours.bic - 2.0 * xlogy(r, r).sum(), rtol=1e-12)


def test_a_population_has_none_of_them():
    for values in criteria(None, drawn(1, 2), np.array([-1.5]), make_model(2)):
        assert np.isnan(values).all()


def test_bits_are_the_same_on_every_instruction_set(bits_by_cpu):
    printed = bits_by_cpu(
        "import pipeline, numpy as np\n"
        "from pipeline.core.criteria import criteria\n"
        "from pipeline.core.mixture import Parameters\n"
        "from pipeline.core.model import make_model\n"
        "points = (np.arange(1003.0)[None] * 0.61803398875) % 1.0 * 6.0\n"
        "theta = Parameters(*(np.array([v]) for v in ([.2, .3, .5], [1., 3., 4.], [.5, 1., 2.])))\n"
        "found = criteria(points, theta, np.array([-1234.5]), make_model(3))\n"
        "print([float(v[0]).hex() for v in found])\n"
    )
    assert len(set(printed.values())) == 1
