"""Maps of basins: a planted example of limits, places on the lattice, and the drawn cells."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline.config import compose
from pipeline.core.model import make_model
from pipeline.core.starts import draw_population_starts, draw_starts
from pipeline.planning import make_plan
from pipeline.plots import png_bytes, svg_bytes
from pipeline.plots.basins import lattice
from pipeline.plots.limits import HUES, RADIUS, Limit, limits, same_colors
from tests.factories import make_study
from tests.plots.conftest import draw, groups_of

TRUTH = "+mixture.far={weights: [0.5,0.3,0.2], means: [-6,0,5], scales: [0.5,0.5,0.5]}"
GRID = (
    "experiment=notebook",
    "mixture=[]",
    TRUTH,
    "model=[]",
    "+model.two={n_components: 2}",
    "init=[grid]",
    "init.grid.points=4",
    "init.grid.low=-7.0",
    "init.grid.high=6.0",
    "sample_sizes=[60,90]",
    "replicates=2",
    "schedule=converge",
    "schedule.max_iter=40",
    "schedule.stop.tolerance=1e-6",
)


@pytest.fixture(scope="module")
def group():
    (found,) = groups_of(make_study(*GRID))
    return found


def planted(centres, sizes, random, n_components, order=None):
    """Fits at each centre (K, 3), jittered far below the radius, their components shuffled."""
    rows, owners = [], []
    for owner, (centre, size) in enumerate(zip(centres, sizes, strict=True)):
        for _ in range(size):
            theta = np.array(centre) + random.uniform(-1e-5, 1e-5, (n_components, 3))
            theta = theta[random.permutation(n_components)]
            values = {
                f"{name}_{k}": theta[k, column]
                for column, name in enumerate(("weight", "mean", "scale"))
                for k in range(n_components)
            }
            likelihood = {"log_likelihood": -100.0 * (owner + 1), "sample_scale": 2.0}
            likelihood |= {"map_residual": 1e-9, "rate_theory": 0.5, "compression_error_bound": 0.0}
            rows.append(values | likelihood | {"outcome": "converged", "n_iter": 5})
            owners.append(owner)
    shuffle = random.permutation(len(rows))
    return pd.DataFrame(rows).iloc[shuffle].reset_index(drop=True), np.array(owners)[shuffle]


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_planted_limits_are_found_whatever_the_order_of_the_components(n_components):
    random = np.random.default_rng(3)
    centres = [random.uniform(1, 5, (n_components, 3)) for _ in range(4)]
    fits, owners = planted(centres, [7, 30, 12, 2], random, n_components)
    places, named = limits(fits, n_components)
    # Owner 0 has the largest log-likelihood: it is A.
    np.testing.assert_array_equal(places, owners)
    assert [limit.name for limit in named] == ["A", "B", "C", "D"]
    for limit, centre in zip(named, centres, strict=True):
        np.testing.assert_allclose(limit.means, np.sort(centre[:, 1]), atol=2e-5)


def test_limits_agree_with_pairs_of_fits():
    """Naive: two fits share a limit if some order of the components brings them together."""
    random = np.random.default_rng(5)
    centres = [[[0.5, 0, 1], [0.5, 2, 1]], [[0.5, 0, 2], [0.5, 2, 1]], [[0.4, 0, 1], [0.6, 2, 1]]]
    fits, _ = planted(centres, [5, 4, 3], random, 2)
    # Equal likelihoods must not join what parameters tell apart.
    fits["log_likelihood"] = -50.0
    places, _ = limits(fits, 2)
    theta = fits[[f"{p}_{k}" for k in (0, 1) for p in ("weight", "mean", "scale")]].to_numpy()
    theta = theta.reshape(-1, 2, 3) / np.array([1.0, 2.0, 2.0])
    for i in range(len(fits)):
        for j in range(len(fits)):
            near = min(
                np.abs(theta[i][list(order)] - theta[j]).max() for order in permutations((0, 1))
            )
            assert (places[i] == places[j]) == (near <= RADIUS)


@pytest.mark.parametrize("rate", [0.5, 0.99, 0.999999])
def test_a_limit_is_one_however_slowly_it_is_reached(rate):
    """EM as its linear map, from starts on all sides of two optima, to a map residual of 1e-8."""
    random = np.random.default_rng(13)
    slow, beside = np.array([0.5, 1.0, 1.0]), np.array([0.5, 1.0 + 0.012, 1.0])
    frame = np.array([[0.6, 0.8, 0.0], [0.8, -0.6, 0.0], [0.0, 0.0, 1.0]])  # the slow one first
    rows = []
    for optimum, fastest, top in ((slow, rate, -100.0), (beside, 0.5, -100.01)):
        rates = np.array([fastest, 0.3, 0.1])
        for _ in range(40):
            away = random.uniform(-0.4, 0.4, 3)  # in the frame of the map's directions
            while (residual := np.abs(frame @ ((1 - rates) * away)).max()) > 1e-8:
                # Of a slow map many steps at once, by which the residual falls by a hundredth.
                away *= rates ** max(1, round(0.01 / (1 - fastest)))
            end = optimum + frame @ away
            rows.append(
                dict(zip(("weight_0", "mean_0", "scale_0"), end, strict=True))
                | {"log_likelihood": top - 500.0 * np.sum((1 - rates) * away**2)}
                | {"rate_theory": fastest, "map_residual": residual, "outcome": "converged"}
                | {"sample_scale": 1.0, "compression_error_bound": 0.0, "n_iter": 5}
            )
    fits = pd.DataFrame(rows)
    spread = np.ptp(fits["mean_0"][:40])
    assert (spread > 2 * RADIUS) == (rate > 0.9999)
    places, named = limits(fits, 1)
    assert places.tolist() == [0] * 40 + [1] * 40
    assert [limit.name for limit in named] == ["A", "B"]


def test_outcomes_and_small_limits_have_names_of_their_own():
    random = np.random.default_rng(7)
    centres = [np.array([[0.5, k, 1.0], [0.5, k + 2.0, 1.0]]) for k in range(8)]
    fits, owners = planted(centres, [9, 8, 7, 6, 5, 4, 3, 2], random, 2)
    outcomes = fits["outcome"].to_numpy(object).copy()
    outcomes[np.flatnonzero(owners == 1)[:3]] = ["degenerate_scale", "max_iter", "max_iter"]
    fits["outcome"] = outcomes
    places, named = limits(fits, 2)
    names = np.array([limit.name for limit in named])
    letters = list("ABCDE")[: len(HUES)]
    assert names.tolist() == [*letters, "degenerate scale", "max iter", "other"]
    assert (names[places][outcomes == "max_iter"] == "max iter").all()
    assert (names[places][outcomes == "degenerate_scale"] == "degenerate scale").all()
    assert set(owners[names[places] == "other"]) == {5, 6, 7}
    assert len({limit.color for limit in named}) == len(named)


def test_one_optimum_has_one_colour_in_all_panels():
    """Whatever its letter, the order of its components and a little noise."""
    random = np.random.default_rng(11)
    optima = [
        np.array([[0.3, 0.7], [mean, mean + 6.0], [1.0, 2.0]]) for mean in (0.0, 10.0, 20.0, 30.0)
    ]

    def panel(places):
        named = []
        for letter, color, place in zip("ABCD", HUES, places, strict=False):
            # Two panels differ by less than 0.18 units.
            noise = random.uniform(-0.09, 0.09, (3, 2)) * [[1.0], [4.0], [4.0]]
            estimate = (optima[place] + noise)[:, random.permutation(2)]
            named.append(Limit(letter, (0.0,), color, -1.0, estimate, 4.0))
        return [*named, Limit("max iter", (), "#bbbbbb")]

    order = [[0, 1, 2], [2, 0], [3, 1, 0], [2, 3]]
    colored = same_colors([panel(places) for places in order])
    found = {}
    for places, named in zip(order, colored, strict=True):
        assert named[-1].color == "#bbbbbb"
        assert [limit.name for limit in named[:-1]] == list("ABC")[: len(places)]
        for place, limit in zip(places, named, strict=False):
            assert found.setdefault(place, limit.color) == limit.color
    assert len(set(found.values())) == 4 and [found[k] for k in range(3)] == list(HUES[:3])


def test_two_limits_of_a_panel_never_share_a_colour():
    """Both lie within the tolerance of one optimum: the nearer one has its colour."""

    def limit(mean):
        return Limit("A", (0.0,), HUES[0], -1.0, np.array([[1.0], [mean], [1.0]]), 1.0)

    (first,), (far, near) = same_colors([[limit(0.0)], [limit(0.15), limit(0.05)]])
    assert near.color == first.color != far.color
    # Beyond the tolerance it is another one.
    (first,), (other,) = same_colors([[limit(0.0)], [limit(0.25)]])
    assert other.color != first.color
    # More optima than colours: within a panel they still differ.
    many = same_colors([[limit(9.0 * p + k) for k in range(5)] for p in range(4)])
    assert all(len({each.color for each in named}) == 5 for named in many)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("ends", [(None, None), (-3.0, None), (-2.0, 7.0)])
def test_places_are_where_the_init_starts(group, symmetric, ends):
    """The init itself is the oracle, on a sample and on the population."""
    options = {"low": ends[0], "high": ends[1]}
    init = {"method": "grid", "points": None, **options}
    changed = replace(group, symmetric=symmetric, inits={"grid": init})
    model = make_model(2, "equal", "symmetric", [1.0, 1.0]) if symmetric else make_model(2)
    key, n_starts = np.array([1, 2], np.uint64), 4 if symmetric else 16
    cell = replace(group.cells[0], starts=n_starts)
    options = options | {"points": 4}
    for population in (False, True):
        if population:
            drawn = draw_population_starts(
                "grid", model, group.truth, key, range(n_starts), options
            )
            changed = replace(changed, points={})
        else:
            points = group.points[cell.id][None]
            drawn = draw_starts("grid", points, model, None, key, [0], range(n_starts), options)
        values = lattice(changed, cell)
        means = drawn.means[0]
        start = np.arange(n_starts)
        if symmetric:
            np.testing.assert_allclose(means[:, 0], values[start], rtol=1e-12, atol=1e-12)
        else:
            np.testing.assert_allclose(means[:, 0], values[start // 4], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(means[:, 1], values[start % 4], rtol=1e-12, atol=1e-12)


def test_the_map_shows_the_table(group):
    figure = draw(group, "basins")
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) == 2
    tables = [group.fits_of(cell).query("replicate == 0") for cell in group.cells]
    colored = same_colors([limits(fits, 2)[1] for fits in tables])
    assert figure.get_suptitle() == f"{group.title}: replicate 0"
    for axes, cell, fits, named in zip(maps, group.cells, tables, colored, strict=True):
        assert len(fits) == 16
        places, _ = limits(fits, 2)
        image = np.asarray(axes.images[0].get_array())
        low, high = axes.images[0].get_extent()[:2]
        values = [-7 + 13 * i / 3 for i in range(4)]
        step = 13 / 3
        assert (low, high) == pytest.approx((-7 - step / 2, 6 + step / 2))
        np.testing.assert_allclose(lattice(group, cell), values)
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        for row, place in zip(fits.itertuples(), places, strict=True):
            # The last mean changes fastest; it is drawn upwards.
            shown = image[row.start % 4, row.start // 4]
            full = np.array([int(named[place].color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
            shade = (1 - shown) / np.where(full < 1, 1 - full, np.nan)
            assert np.nanmax(shade) == pytest.approx(np.nanmin(shade))
            assert 0.35 <= np.nanmin(shade) <= 1.0 + 1e-12
        for limit, count in zip(named, np.bincount(places), strict=True):
            (text,) = [text for text in texts if text.startswith(f"{limit.name}:")]
            assert text.endswith(f"{100 * count / 16:.0f} %")
            if limit.estimate is not None:
                value = f"{limit.log_likelihood / cell.sample_size:.3f}".replace("-", "−")
                assert f"; ℓ/n {value}; " in text


@pytest.mark.parametrize(
    ("points", "n_components", "ordinals"),
    [(60, 2, (15, 45)), (4, 2, (1, 3)), (10, 3, (1, 5, 8)), (3, 3, (0, 1, 2)), (10, 1, (5,))],
)
def test_the_fit_that_is_shown_starts_with_its_means_apart(points, n_components, ordinals):
    """The init itself tells where a start is."""
    plan, _ = make_plan(
        compose([*GRID, f"model.two.n_components={n_components}", f"init.grid.points={points}"])
    )
    for cell in plan.cells:
        replicate, start = plan.representative(cell)
        options = {"points": points, "low": -7.0, "high": 6.0}
        sample, key = np.zeros((1, 5)) + np.arange(5), np.array([1, 2], np.uint64)
        model = make_model(n_components)
        drawn = draw_starts("grid", sample, model, None, key, [0], [start], options)
        values = np.linspace(-7.0, 6.0, points)
        np.testing.assert_allclose(drawn.means[0, 0], values[list(ordinals)])
        assert replicate == 0 and len(set(ordinals)) == n_components


def test_another_cell_shows_its_first_fit():
    plan, _ = make_plan(compose(["experiment=notebook", "init=[random_points]", "starts=20"]))
    assert {plan.representative(cell) for cell in plan.cells} == {(0, 0)}
    symmetric = [f"+model.two.{part}" for part in ("means=symmetric", "weights=equal")]
    plan, _ = make_plan(compose([*GRID, *symmetric, "+model.two.scales=[1,1]"]))
    assert {plan.representative(cell) for cell in plan.cells} == {(0, 0)}


def test_the_map_marks_the_fit_that_is_shown(group):
    figure = draw(group, "basins")
    maps = [axes for axes in figure.axes if axes.images]
    for axes, cell in zip(maps, group.cells, strict=True):
        (mark,) = [each for each in axes.lines if each.get_marker() == "P"]
        assert mark.get_xydata()[0].tolist() == pytest.approx([-7 + 13 / 3, 6])
        assert set(group.representative(cell)["start"]) == {1 * 4 + 3}
    drawn = draw(group, "log_likelihood_trajectories").axes[0].lines
    (thick,) = [each for each in drawn if each.get_alpha() == 1.0]
    trace = group.representative(group.panel(group.sizes[0])[0])
    np.testing.assert_array_equal(thick.get_ydata(), trace["log_likelihood"])
    title, _, left_out = draw(group, "snapshots").get_suptitle().partition("\n")
    assert title.endswith("replicate 0, start 7") and "outside" in left_out


def test_few_starts_are_spread_and_hold_the_one_that_is_shown(group):
    cell = group.cells[0]
    assert group.spread_starts(cell, 4).tolist() == [0, 7, 10, 15]
    assert group.spread_starts(cell, 16).tolist() == list(range(16))
    first = replace(group, representatives={cell.id: (0, 0)})
    assert first.spread_starts(cell, 4).tolist() == [0, 5, 10, 15]


def test_more_iterations_are_darker(group):
    figure = draw(group, "basins")
    cell = group.cells[0]
    fits = group.fits_of(cell).query("replicate == 0").reset_index(drop=True)
    places, named = limits(fits, 2)
    image = np.asarray(figure.axes[0].images[0].get_array())
    starts = fits["start"].to_numpy()
    light = image[starts % 4, starts // 4].sum(axis=1)
    for place in range(len(named)):
        of_limit = places == place
        order = np.argsort(fits["n_iter"].to_numpy()[of_limit], kind="stable")
        assert (np.diff(light[of_limit][order]) <= 1e-12).all()
    assert np.ptp(light) > 0.1


def test_the_same_bytes_again(group):
    assert svg_bytes(draw(group, "basins")) == svg_bytes(draw(group, "basins"))
    assert png_bytes(draw(group, "basins")) == png_bytes(draw(group, "basins"))


def test_nothing_without_a_lattice_of_one_or_two_means(group, study):
    assert draw(study, "basins") is None
    assert draw(replace(group, fits=group.fits.iloc[:0]), "basins") is None


def test_the_title_of_a_strip_stands_above_that_of_its_panel(group):
    cell = replace(group.cells[0], starts=4)
    fits = group.fits_of(cell).query("start < 4")
    one = replace(group, symmetric=True, cells=(cell,), fits=fits)
    figure = draw(one, "basins")
    renderer = FigureCanvasAgg(figure).get_renderer()
    title = figure._suptitle.get_window_extent(renderer)
    assert title.y0 >= figure.axes[0].title.get_window_extent(renderer).y1
