"""The config key `measures`: columns where asked for, the same bytes, missing where they should."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline import blocks
from pipeline.__main__ import main, run_stages
from pipeline.checks import MEASURES
from pipeline.config import compose
from pipeline.core.distances import distances
from pipeline.core.information import standard_errors
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.planning import make_plan
from pipeline.replay import main as replay
from pipeline.stages.fit import fit
from pipeline.stages.generate import generate
from pipeline.stages.plan import plan
from pipeline.tables import FITS, measure_columns, parameter_columns, read_fits

STUDY = (
    "experiment=convergence",
    "mixture=[overlap_low,marron_wand_09_trimodal]",
    "sample_sizes=[60]",
    "init=[kmeans_pp]",
    "replicates=30",
    "schedule.max_iter=300",
    "tracking=none",
    "report=minimal",
)
# With two true numbers of components: models of two and three.
THREE = "+model.three={n_components: 3}"
BOTH = "measures=[wald,distances]"
COLUMNS = [name for measure in MEASURES for name in measure_columns(measure, 3)]


def numbers(*overrides: str, to: str = "results") -> Path:
    """Run the stages that make fits; return the folder."""
    folder = Path(to)
    plan(compose([*STUDY, *overrides]), folder)
    generate(folder)
    fit(folder)
    return folder


def parts(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / FITS).iterdir())]


def estimates(fits: pd.DataFrame, n_components: int, prefix: str = "") -> Parameters:
    names = [prefix + name for name in parameter_columns(n_components)]
    values = fits[names].to_numpy(float).reshape(len(fits), 3, n_components)
    return Parameters(values[:, 0], values[:, 1], values[:, 2])


@pytest.mark.parametrize("measures", [[], ["wald"], ["distances"], ["distances", "wald"]])
def test_columns_are_there_only_where_asked_for(workspace, measures):
    folder = numbers(THREE, f"measures=[{','.join(measures)}]")
    wanted = [name for m in MEASURES if m in measures for name in measure_columns(m, 3)]
    schemas = [pq.read_schema(path) for path in sorted((folder / FITS).iterdir())]
    assert len(schemas) == 4
    for schema in schemas:
        assert schema.names[schema.names.index("icl") + 1 :] == wanted
        assert schema.remove_metadata() == schemas[0].remove_metadata()
    # They come on top: no other number of a fit changes.
    plain = read_fits(numbers(THREE, to="plain"))
    pd.testing.assert_frame_equal(read_fits(folder)[plain.columns], plain)


def test_a_measure_is_content_of_a_cell_and_its_place_in_the_list_is_not():
    def contents(measures):
        return [cell.content for cell in make_plan(compose([*STUDY, measures]))[0].cells]

    assert contents("measures=[]") == contents("measures=[]")
    assert len({*contents("measures=[]"), *contents("measures=[wald]"), *contents(BOTH)}) == 6
    assert contents(BOTH) == contents("measures=[distances,wald]")


def test_the_numbers_are_those_of_the_core_in_the_order_of_the_parameters(workspace):
    folder = numbers(THREE, BOTH)
    config = compose(STUDY)
    table = read_fits(folder)
    for (mixture, model), fits in table.groupby(["mixture", "model"]):
        truth = config["mixture"][mixture]
        true = Parameters(*(np.array(truth[part]) for part in ("weights", "means", "scales")))
        n_components = 3 if model == "three" else true.means.size
        fitted = estimates(fits, n_components)
        points = np.load(folder / f"samples/{mixture}-n60.npy")
        sound = fits["outcome"].isin(["converged", "max_iter"]).to_numpy()
        assert sound.sum() > 20
        expected = standard_errors(points, fitted, make_model(n_components), sound)
        for found, values in zip(estimates(fits, n_components, "se_"), expected, strict=True):
            np.testing.assert_array_equal(found, values)
        # Most of them are there, and belong to the component beside them.
        there = np.isfinite(expected.means).all(axis=1)
        assert there.mean() > 0.5
        there &= (fits["outcome"] == "converged").to_numpy()
        # At a maximum, what is missing only adds to the error of points of known components.
        complete = fitted.scales / np.sqrt(60 * fitted.weights)
        assert (expected.means / complete)[there].min() > 1 - 1e-5
        for name, values in distances(fitted, true)._asdict().items():
            np.testing.assert_array_equal(fits[name].to_numpy(float), values)
            assert np.isfinite(values).mean() > 0.9


def test_same_bytes_whatever_the_threads_and_blocks(workspace, monkeypatch):
    plain = parts(numbers(BOTH, to="plain"))
    assert parts(numbers(BOTH, "executor.workers=1", "store_dir=.one", to="one")) == plain
    monkeypatch.setattr(blocks, "MOST_VALUES", 60 * 4)
    assert parts(numbers(BOTH, "store_dir=.small", to="small")) == plain


def test_large_samples_give_the_same_bytes_on_any_number_of_threads(workspace, monkeypatch):
    monkeypatch.setattr("pipeline.core.information.CHUNK", 9_000)
    study = ("mixture=[overlap_low]", "model=[free]", "sample_sizes=[30000]", "replicates=3")
    found = [
        parts(numbers(*study, BOTH, f"executor.workers={n}", f"store_dir=s{n}", to=f"r{n}"))
        for n in (1, 8)
    ]
    assert found[0] == found[1]
    fits = read_fits(Path("r1"))
    assert np.isfinite(fits[[f"se_{name}" for name in parameter_columns(2)]]).all(axis=None)


def test_populations_have_distances_and_no_standard_errors(workspace):
    study = ("mixture=[overlap_low]", "model=[free]", "sample_sizes=[inf]")
    fits = read_fits(numbers(*study, BOTH, "init=[truth]", "schedule=converge"))
    assert fits[[f"se_{name}" for name in parameter_columns(2)]].isna().all(axis=None)
    assert (fits[measure_columns("distances", 2)] < 1e-6).all(axis=None)


def test_observed_data_have_standard_errors_and_no_distances(workspace):
    study = ("mixture=[]", "observed=[old_faithful]", "model=[free]", "model.free.n_components=2")
    fits = read_fits(numbers(*study, BOTH))
    assert (fits["outcome"] == "converged").all()
    assert np.isfinite(fits[[f"se_{name}" for name in parameter_columns(2)]]).all(axis=None)
    assert fits[measure_columns("distances", 2)].isna().all(axis=None)


def test_a_failed_fit_has_neither(workspace, monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("not this time")

    monkeypatch.setattr(blocks, "fit", fails)
    fits = read_fits(numbers(BOTH, "replicates=2"))
    assert (fits["outcome"] == "error").all()
    assert fits[COLUMNS].isna().all(axis=None)


def test_a_degenerate_fit_has_no_standard_errors(workspace):
    # A floor of a whole standard deviation: every fit falls below it.
    fits = read_fits(numbers(BOTH, "degeneracy.scale=1"))
    assert (fits["outcome"] == "degenerate_scale").all()
    assert fits[[name for name in COLUMNS if name.startswith("se_")]].isna().all(axis=None)
    assert np.isfinite(fits[measure_columns("distances", 3)]).all(axis=None)


def test_a_study_with_measures_end_to_end_and_one_of_its_fits_again(workspace, capsys):
    run_stages(compose([*STUDY, BOTH, "report=full"]), folder := Path("results/convergence"))
    assert (folder / "report.html").is_file()
    name = read_fits(folder)["fit_id"].iloc[5]
    assert replay(["experiment=convergence", f"fit_id={name}"]) == 0
    assert "bit by bit" in capsys.readouterr().out


def test_the_command_line_takes_a_list(workspace):
    main([*STUDY, "replicates=2", "measures=[distances]"])
    fits = read_fits(Path("results/convergence"))
    assert list(fits.columns)[-4:] == measure_columns("distances", 3)
