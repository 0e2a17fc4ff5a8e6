"""Every file under conf/ composes; bad input is refused before anything is written."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline.__main__ import main
from pipeline.checks import FACTORS
from pipeline.command import exit_status
from pipeline.config import CONF, compose
from pipeline.core.algorithms import ALGORITHMS, Options
from pipeline.core.starts import INITS
from pipeline.errors import InputError
from pipeline.planning import make_plan
from pipeline.schema import Init

FILES = sorted(path for path in CONF.rglob("*.yaml") if path.parent != CONF)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_option_composes_and_plans(path: Path):
    group = path.parent.name
    overrides = [f"{group}=[{path.stem}]" if group in FACTORS else f"{group}={path.stem}"]
    if group == "observed":
        overrides += ["mixture=[]", "model.notebook.n_components=2"]
    config = compose(overrides)
    if group in FACTORS:
        assert list(config[group]) == [path.stem]
    if group == "experiment":
        assert config["title"] and config["question"]
    plan, _ = make_plan(config)
    assert plan.cells


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_says_what_it_is(path: Path):
    text = path.read_text()
    first = text.splitlines()[0]
    described = first.startswith("# ") or "source" in next(iter(yaml.safe_load(text).values()))
    assert described, f"{path} needs a first comment line or a source"


def defaults(algorithm):
    return {name: Options._field_defaults[name] for name in algorithm.options}


def test_whatever_is_registered_has_a_file():
    for name, algorithm in ALGORITHMS.items():
        content = yaml.safe_load((CONF / "algorithm" / f"{name}.yaml").read_text())
        assert content == {name: {"method": name} | defaults(algorithm)}
    for name, init in INITS.items():
        content = yaml.safe_load((CONF / "init" / f"{name}.yaml").read_text())
        # What has no default is an example in the file.
        options = {
            key: option.default if option.accepts(option.default) else content[name][key]
            for key, option in init.options.items()
        }
        assert content == {name: {"method": name} | options}


def test_the_schema_knows_the_options_of_every_init():
    options = {key for init in INITS.values() for key in init.options}
    assert set(Init.__dataclass_fields__) == {"method"} | options


def test_an_init_has_the_options_of_its_method_and_no_other_key():
    config = compose(["init=[notebook,kmeans,grid]", "init.kmeans.iterations=7"])
    assert config["init"] == {
        "notebook": {"method": "notebook"},
        "kmeans": {"method": "kmeans", "iterations": 7},
        "grid": {"method": "grid", "points": 10, "low": None, "high": None},
    }
    config = compose(["init=[]", "+init.mine={method: perturbed_truth, size: 1}"])
    assert config["init"] == {"mine": {"method": "perturbed_truth", "size": 1.0}}
    config = compose(["init=[]", "+init.mine={method: short_runs, runs: 3}"])
    assert config["init"] == {"mine": {"method": "short_runs", "runs": 3, "iterations": 5}}


def test_a_grid_of_mixtures_in_one_go():
    names = [path.stem for path in FILES if path.parent.name == "mixture"]
    config = compose([f"mixture=[{','.join(names)}]", "init=[notebook,kmeans_pp]"])
    plan, _ = make_plan(config | {"sample_sizes": [40, 400]})
    assert len(plan.cells) == len(names) * 2 * 2
    assert len({cell.id for cell in plan.cells}) == len(plan.cells)


def test_defaults_are_the_documented_ones():
    config = compose([])
    assert (config["experiment"], config["starts"]) == ("notebook", 1)
    assert config["schedule"] == {
        "max_iter": 9,
        "stop": {"rule": "never", "tolerance": None, "patience": 1},
        "record": "all",
        "record_replicates": "all",
        "snapshots": [0, 3, 6, 9],
    }
    assert compose(["schedule=converge"])["schedule"]["stop"] == {
        "rule": "map_residual",
        "tolerance": 1e-8,
        "patience": 1,
    }
    assert compose(["schedule=tight"])["schedule"]["max_iter"] == 1_000_000
    assert config["results_dir"] == "results"
    assert config["store_dir"] == ".cells"


def test_factors_inline():
    mixture = "+mixture.mine={weights: [0.3,0.7], means: [-1,1], scales: [1,1]}"
    plan, _ = make_plan(compose([mixture, "mixture=[]"]))
    assert [cell.mixture for cell in plan.cells] == ["mine"]
    plan, _ = make_plan(compose([mixture, "experiment=convergence"]))
    assert {cell.mixture for cell in plan.cells} >= {"mine", "overlap_low"}


def test_overrides_work_on_top_of_an_experiment():
    config = compose(["experiment=notebook", "mixture=[marron_wand_10_claw]", "seed=7"])
    assert (list(config["mixture"]), config["seed"]) == (["marron_wand_10_claw"], 7)


BAD = {
    "unknown key": (["nosuchkey=1"], "nosuchkey"),
    "appended key": (["+new=1"], "new"),
    "appended nested key": (["+schedule.stop.patience_=3"], "schedule.stop.patience_"),
    "unknown choice": (["mixture=[nosuch]"], "nosuch"),
    "unknown schedule": (["schedule=nosuch"], "nosuch"),
    "unknown experiment": (["experiment=nosuch"], "nosuch"),
    "text for an integer": (["seed=abc"], "seed"),
    "number too large": (["seed=9223372036854775808"], "seed"),
    "negative seed": (["seed=-1"], "seed"),
    "zero replicates": (["replicates=0"], "replicates"),
    "fractional replicates": (["replicates=1.5"], "replicates"),
    "null replicates": (["replicates=null"], "replicates"),
    "unknown measure": (["measures=[wald,bootstrap]"], "measures"),
    "measure twice": (["measures=[wald,wald]"], "measures"),
    "measure that is no list": (["measures=wald"], "measures"),
    "null measures": (["measures=null"], "measures"),
    "measures of null": (["measures=[null]"], "measures"),
    "zero starts": (["starts=0"], "starts"),
    "weights off one": (["mixture.notebook.weights=[0.5,0.6]"], "mixture.notebook.weights"),
    "negative weight": (["mixture.notebook.weights=[1.5,-0.5]"], "mixture.notebook.weights"),
    "scale zero": (["mixture.notebook.scales=[0,1]"], "mixture.notebook.scales"),
    "scale negative": (["mixture.notebook.scales=[1,-1]"], "mixture.notebook.scales"),
    "scale not a number": (["mixture.notebook.scales=[nan,1]"], "mixture.notebook.scales"),
    "scale whose square overflows": (
        ["mixture.notebook.scales=[1e160,1]"],
        "mixture.notebook.scales: got [1e+160, 1.0]; allowed: standard deviations from 1e-150",
    ),
    "scale whose square vanishes": (
        ["mixture.notebook.scales=[1,9e-151]"],
        "mixture.notebook.scales",
    ),
    "mean whose square overflows": (
        ["mixture.notebook.means=[0,-5e160]"],
        "mixture.notebook.means: got [0.0, -5e+160]; allowed: numbers from -1e+150 to 1e+150",
    ),
    "mean infinite": (["mixture.notebook.means=[inf,1]"], "mixture.notebook.means"),
    "mean text": (["mixture.notebook.means=[a,1]"], "mixture.notebook.means"),
    "unequal lengths": (["mixture.notebook.means=[1,2,3]"], "mixture.notebook"),
    "unknown allocation": (["mixture.notebook.allocation=random"], "mixture.notebook.allocation"),
    "mixture lacks scales": (["+mixture.mine={weights: [1.0], means: [0.0]}"], "mine.scales"),
    "mixture has too much": (
        ["+mixture.mine={weights: [1], means: [0], scales: [1], sd: [1]}"],
        "mixture.mine.sd",
    ),
    "name with a slash": (
        ["+mixture.a/b={weights: [1], means: [0], scales: [1]}"],
        "a/b",
    ),
    "no data": (["mixture=[]"], "mixture"),
    "no init": (["init=[]"], "init"),
    "negative size": (["sample_sizes=[-5]"], "sample_sizes"),
    "size zero": (["sample_sizes=[0]"], "sample_sizes"),
    "size not a list": (["sample_sizes=40"], "sample_sizes"),
    "size text": (["sample_sizes=[many]"], "sample_sizes"),
    "size fractional": (["sample_sizes=[40.5]"], "sample_sizes"),
    "size twice": (["sample_sizes=[40,40]"], "sample_sizes"),
    "no sizes": (["sample_sizes=[]"], "sample_sizes"),
    "size minus infinity": (["sample_sizes=[-inf]"], "sample_sizes"),
    "size not a number": (["sample_sizes=[nan]"], "sample_sizes"),
    "population twice": (["sample_sizes=[inf,inf]"], "sample_sizes"),
    "fewer points than components": (["sample_sizes=[1]"], "sample_sizes"),
    "unknown rule": (["schedule.stop.rule=nosuch"], "schedule.stop.rule"),
    "rule without tolerance": (["schedule.stop.rule=aitken"], "schedule.stop.tolerance"),
    "negative tolerance": (["schedule=converge", "schedule.stop.tolerance=-1"], "tolerance"),
    "negative max_iter": (["schedule.max_iter=-1"], "schedule.max_iter"),
    "unknown record": (["schedule.record=some"], "schedule.record"),
    "negative record": (["schedule.record=[0,-1]"], "schedule.record"),
    "record_replicates text": (["schedule.record_replicates=few"], "schedule.record_replicates"),
    "negative snapshot": (["schedule.snapshots=[-1]"], "schedule.snapshots"),
    "model scales text": (["model.notebook.scales=wild"], "model.notebook"),
    "symmetric with free scales": (["model=[symmetric]", "model.symmetric.scales=free"], "means"),
    "symmetric with three": (
        [
            "model=[symmetric]",
            "mixture=[marron_wand_09_trimodal]",
            "model.symmetric.n_components=3",
        ],
        "model.symmetric",
    ),
    "fixed weights of another length": (["model.notebook.weights=[0.2,0.3,0.5]"], "weights"),
    "components zero": (["model.notebook.n_components=0"], "model.notebook.n_components"),
    "truth of another size": (["init=[truth]", "model.notebook.n_components=3"], "init"),
    "init calls nothing": (["+init.bad={method: os.system}"], "init.bad.method"),
    "init without a method": (["+init.bad={size: 1}"], "init.bad.method"),
    "option that no init has": (["+init.kmeans_pp={power: 2}"], "init.kmeans_pp.power"),
    "option of another init": (["+init.notebook.size=1"], "init.notebook.size"),
    "option of another init, its name told": (
        ["+init.bad={method: kmeans, runs: 3}"],
        "kmeans has the options iterations",
    ),
    "size zero of a perturbation": (
        ["init=[perturbed_truth]", "init.perturbed_truth.size=0"],
        "init.perturbed_truth.size",
    ),
    "size of a perturbation not a number": (
        ["init=[perturbed_truth]", "init.perturbed_truth.size=nan"],
        "init.perturbed_truth.size",
    ),
    "no iterations of k-means": (["init=[kmeans]", "init.kmeans.iterations=0"], "iterations"),
    "fractional iterations": (["init=[kmeans]", "init.kmeans.iterations=1.5"], "iterations"),
    "runs as truth value": (["init=[short_runs]", "init.short_runs.runs=true"], "short_runs.runs"),
    "too many runs": (["init=[short_runs]", "init.short_runs.runs=1001"], "short_runs.runs"),
    "a lattice of one point": (["init=[grid]", "init.grid.points=1"], "init.grid.points"),
    "a lattice beyond reason": (["init=[grid]", "init.grid.points=1001"], "init.grid"),
    "a lattice beyond all reason": (
        [
            "init=[grid]",
            "init.grid.points=1000000",
            "model.notebook.n_components=999",
            "sample_sizes=[1000]",
        ],
        "init.grid",
    ),
    "a lattice from high to low": (
        ["init=[grid]", "init.grid.low=3", "init.grid.high=3"],
        "init.grid.low",
    ),
    "a lattice from nowhere": (["init=[grid]", "init.grid.low=-inf"], "init.grid.low"),
    "start of another size": (
        ["init=[explicit]", "init.explicit.means=[0,1,2]"],
        "init.explicit.means",
    ),
    "start's weights off one": (["init=[explicit]", "init.explicit.weights=[0.5,0.6]"], "weights"),
    "start's weight zero": (["init=[explicit]", "init.explicit.weights=[0,1]"], "weights"),
    "start's scale negative": (["init=[explicit]", "init.explicit.scales=[1,-1]"], "scales"),
    "start's means a number": (["init=[explicit]", "init.explicit.means=5"], "init.explicit.means"),
    "start's means text": (["init=[explicit]", "init.explicit.means=[a,b]"], "init.explicit.means"),
    "start without scales": (
        ["+init.mine={method: explicit, weights: [0.5,0.5], means: [0,1]}"],
        "init.mine.scales",
    ),
    "perturbed truth of another size": (
        ["init=[perturbed_truth]", "model.notebook.n_components=3"],
        "init",
    ),
    "algorithm calls nothing": (["+algorithm.bad={method: eval}"], "algorithm.bad.method"),
    "option of another method": (
        ["+algorithm.bad={method: em, growth: 2}"],
        "algorithm.bad.growth",
    ),
    "depth of plain EM": (["+algorithm.bad={method: em, depth: 2}"], "algorithm.bad.depth"),
    "no depth": (["algorithm=[anderson]", "algorithm.anderson.depth=0"], "anderson.depth"),
    "fractional depth": (
        ["algorithm=[anderson]", "algorithm.anderson.depth=2.5"],
        "anderson.depth",
    ),
    "annealed backwards": (["algorithm=[annealed]", "algorithm.annealed.growth=0.9"], "growth"),
    "annealed from nothing": (["algorithm=[annealed]", "algorithm.annealed.start=0"], "start"),
    "hard assignment of a population": (
        ["algorithm=[classification]", "sample_sizes=[inf]"],
        "classification",
    ),
    "a matrix beyond memory": (
        ["algorithm=[bfgs]", "sample_sizes=[1000]", "+model.many={n_components: 101}"],
        "bfgs",
    ),
    "no patience": (["schedule.stop.patience=0"], "schedule.stop.patience"),
    "a floor below the collapse": (["degeneracy.scale_floor=1e-7"], "degeneracy.scale_floor"),
    "a floor above the sample": (["degeneracy.scale_floor=2"], "degeneracy.scale_floor"),
    "no penalty": (["degeneracy.penalty=0"], "degeneracy.penalty"),
    "an endless penalty": (["degeneracy.penalty=.inf"], "degeneracy.penalty"),
    "workers zero": (["executor.workers=0"], "executor.workers"),
    "address of threads": (["+executor.address=tcp://host:1"], "executor.address"),
    "no address": (["executor=dask", "executor.address=host"], "executor.address"),
    "workers at an address": (
        ["executor=dask", "executor.address=tcp://host:1", "executor.workers=2"],
        "executor.workers",
    ),
    "no retries": (["executor=dask", "executor.retries=null"], "executor.retries"),
    "no cores": (["executor=slurm", "executor.cores=0"], "executor.cores"),
    "no jobs": (["executor=slurm", "executor.jobs=null"], "executor.jobs"),
    "memory without a unit": (["executor=slurm", "executor.memory='8'"], "executor.memory"),
    "walltime in words": (["executor=slurm", "executor.walltime=long"], "executor.walltime"),
    "no directive": (["executor=slurm", "executor.directives=[qos]"], "executor.directives"),
    "unknown executor": (["executor=spark"], "executor"),
    "server without address": (["tracking=server", "tracking.uri=null"], "tracking.uri"),
    "one step": (["tracking.max_steps=1"], "tracking.max_steps"),
    "unknown compression": (["compression=bins"], "compression"),
    "no tolerance of compression": (["compression_tolerance=0"], "compression_tolerance"),
    "loose tolerance of compression": (["compression_tolerance=1"], "compression_tolerance"),
    "compression tolerance not a number": (["compression_tolerance=nan"], "compression_tolerance"),
    "compression tolerance null": (["compression_tolerance=null"], "compression_tolerance"),
    "unknown report": (["report=long"], "report"),
    "a shard that is none": (["shard=three"], "shard"),
    "a shard beyond the last": (["shard=17/16"], "shard"),
    "shard 0": (["shard=0/4"], "shard"),
    "unknown figure": (["figures=[snapshots,pie_chart]"], "figures"),
    "a figure twice": (["figures=[snapshots,snapshots]"], "figures"),
    "figures neither all nor a list": (["figures=some"], "figures"),
    "only unknown key": (["only=[{size: 40}]"], "only"),
    "only unknown value": (["only=[{mixture: nosuch}]"], "only.mixture"),
    "reference beyond reason": (["reference.tolerance=1"], "reference.tolerance"),
    "no target": (["targets.log_likelihood_gap=[]"], "targets.log_likelihood_gap"),
    "target 0": (["targets.distance_to_fixed_point=[0]"], "targets.distance_to_fixed_point"),
    "target nan": (["targets.log_likelihood_gap=[.nan]"], "targets.log_likelihood_gap"),
    "target infinite": (["targets.log_likelihood_gap=[inf]"], "targets.log_likelihood_gap"),
    "target twice": (["targets.log_likelihood_gap=[1,1.0]"], "targets.log_likelihood_gap"),
    "target of what": (["+targets.rate=[1]"], "targets.rate"),
    "targets no list": (["targets.log_likelihood_gap=1"], "targets.log_likelihood_gap"),
    "reference negative": (["reference.scale_ratio=-1e-3"], "reference.scale_ratio"),
    "reference not a number": (["reference.scale_ratio=nan"], "reference.scale_ratio"),
    "reference null": (["reference.tolerance=null"], "reference.tolerance"),
    "reference of another key": (["+reference.scale=1"], "reference.scale"),
    "number for the reference": (["reference=5"], "reference"),
    "replay of no rule": (["replay=[{rule: no, tolerances: [1]}]"], "replay[0].rule"),
    "replay without a rule": (["replay=[{tolerances: [1]}]"], "replay[0].rule"),
    "replay of never": (["replay=[{rule: never, tolerances: [1]}]"], "replay[0].rule"),
    "replay without tolerances": (["replay=[{rule: aitken}]"], "replay[0].tolerances"),
    "replay of no tolerance": (["replay=[{rule: aitken, tolerances: []}]"], "tolerances"),
    "replay of one tolerance": (["replay=[{rule: aitken, tolerances: 1e-3}]"], "tolerances"),
    "replay beyond zero": (["replay=[{rule: aitken, tolerances: [-1]}]"], "replay[0].tolerances"),
    "replay of infinity": (["replay=[{rule: aitken, tolerances: [inf]}]"], "replay[0].tolerances"),
    "replay of nan": (["replay=[{rule: aitken, tolerances: [nan]}]"], "replay[0].tolerances"),
    "replay of null": (["replay=[{rule: aitken, tolerances: [null]}]"], "tolerances[0]"),
    "replay without patience": (
        ["replay=[{rule: aitken, tolerances: [1], patience: 0}]"],
        "replay[0].patience",
    ),
    "replay twice": (["replay=[{rule: aitken, tolerances: [1, 1.0]}]"], "replay: got"),
    "replay in two entries": (
        ["replay=[{rule: aitken, tolerances: [1, 2]}, {rule: aitken, tolerances: [2]}]"],
        "replay: got",
    ),
    "replay of another key": (["replay=[{rule: aitken, tolerance: 1}]"], "tolerance: unknown key"),
    "replay not a list": (["replay={rule: aitken, tolerances: [1]}"], "replay"),
    "replay of names": (["replay=[aitken]"], "replay: got"),
    "replay of thin traces": (
        ["schedule=tight", "replay=[{rule: aitken, tolerances: [1]}]"],
        "schedule.record=all",
    ),
    "replay of listed rows": (
        ["schedule.record=[0,1]", "replay=[{rule: aitken, tolerances: [1]}]"],
        "schedule.record=all",
    ),
    "replay of compressed samples": (
        ["sample_sizes=[40,20000]", "replay=[{rule: aitken, tolerances: [1]}]"],
        "compression=none",
    ),
    "degeneracy negative": (["degeneracy.scale=-1"], "degeneracy.scale"),
    "max_iter beyond 64 bits": (["schedule.max_iter=99999999999999999999999"], "max_iter"),
    "replicates beyond reason": (["replicates=99999999999999999999"], "replicates"),
    "size beyond memory": (["sample_sizes=[1000000000000]"], "sample_sizes"),
    "samples beyond the disk": (["replicates=1000000000", "sample_sizes=[1000000]"], "free"),
    "starts beyond reason": (["starts=100000000000000000000"], "starts"),
    "record beyond 64 bits": (["schedule.record=[99999999999999999999999]"], "schedule.record"),
    "workers beyond reason": (["executor.workers=10000000000000000000000"], "executor.workers"),
    "fixed weights as text": (["model.notebook.weights=['0.5','0.5']"], "model.notebook.weights"),
    "fixed scale as truth value": (["model.notebook.scales=true"], "model.notebook.scales"),
    "truth values as scales": (["model.notebook.scales=[true,true]"], "model.notebook.scales"),
    "truth value as integer": (["replicates=true"], "replicates"),
    "null group": (["mixture=null"], "mixture=null"),
    "null tracking": (["tracking=null"], "tracking=null"),
    "null experiment": (["experiment=null"], "experiment"),
    "no experiment": (["experiment=[]"], "experiment"),
    "two experiments": (["experiment=[notebook,convergence]"], "experiment"),
    "experiment taken away": (["~experiment"], "experiment"),
    "experiment with its ending": (["experiment=notebook.yaml"], "notebook.yaml"),
    "no key": (["=1"], "=1"),
    "no group": (["@x=1"], "@x=1"),
    "nested means": (["mixture.notebook.means=[[1],[2]]"], "mixture.notebook.means"),
    "only with a list": (["only=[{mixture: [notebook]}]"], "only.mixture"),
    "only with a mapping": (["only=[{mixture: {a: 1}}]"], "only.mixture"),
    "only not a list": (["only={mixture: notebook}"], "only"),
    "only of names": (["only=[notebook]"], "only"),
    "number for a section": (["degeneracy=5"], "degeneracy"),
    "text for a section": (["schedule.stop=aitken"], "schedule.stop"),
    "database nowhere": (["tracking.uri=sqlite://"], "tracking.uri"),
    "database in memory": (["tracking.uri=sqlite:///:memory:"], "tracking.uri"),
    "database a folder": (["tracking.uri=sqlite:////tmp"], "tracking.uri"),
    "server that is none": (["tracking=server", "tracking.uri=notaurl"], "tracking.uri"),
    "server without host": (["tracking=server", "tracking.uri=http://:5000"], "tracking.uri"),
    "port beyond": (["tracking=server", "tracking.uri=http://host:65536"], "tracking.uri"),
    "port zero": (["tracking=server", "tracking.uri=http://host:0"], "tracking.uri"),
    "broken sweep": (["-m", "seed=[1"], "seed=[1"),
    "sweep over nothing known": (["-m", "seed=glob(*)"], "seed"),
    "broken override": (["mixture=[notebook"], "mixture"),
    "not an override": (["notebook"], "notebook"),
    "no such file": (["mixture=[]", "+observed.mine={path: no.csv, column: x}"], "observed.mine"),
    "file of another kind": (["+observed.mine={path: no.txt, column: x}"], "observed.mine.path"),
}


@pytest.mark.parametrize(("overrides", "named"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_in_a_line_or_two(overrides, named, workspace, capsys):
    assert exit_status(lambda: main(overrides)) == 2
    error = capsys.readouterr().err
    assert named in error
    assert 1 <= len(error.strip().splitlines()) <= 2
    assert "Traceback" not in error
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    "address", ["http://me:secret@host:99999", "https://secret@host", "me:secret@host"]
)
@pytest.mark.parametrize("backend", ["server", "sqlite", "none"])
def test_a_password_in_an_address_is_refused_and_not_printed(backend, address, workspace, capsys):
    overrides = [f"tracking={backend}", f"tracking.uri='{address}'"]
    assert exit_status(lambda: main(overrides)) == 2
    error = capsys.readouterr().err
    assert "secret" not in error
    assert "MLFLOW_TRACKING_PASSWORD" in error
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "column", "named"),
    [
        ("x\n1\nnan\n", "x", "row 1"),
        ("x\n1\ntwo\n", "x", "'two'"),
        ("x\n1\ninf\n", "x", "row 1"),
        ("x\n1\n\n3,4\n", "x", "observed.mine"),
        ("x\n1\n2\n", "y", "observed.mine.column"),
        ("x\n", "x", "empty"),
    ],
)
def test_bad_data_is_refused(content, column, named, workspace, capsys):
    (workspace / "my.csv").write_text(content)
    overrides = [
        "mixture=[]",
        f"+observed.mine={{path: my.csv, column: {column}}}",
        "model.notebook.n_components=2",
    ]
    assert exit_status(lambda: main(overrides)) == 2
    error = capsys.readouterr().err
    assert named in error
    assert len(error.strip().splitlines()) <= 2
    assert [path.name for path in workspace.iterdir()] == ["my.csv"]


def test_only_numbers_are_data(workspace):
    tables = {
        "text": pd.DataFrame({"x": ["1", "2", "4"]}),
        "times": pd.DataFrame({"x": pd.to_datetime(["2020-01-01", "2021-01-01", "2022-01-01"])}),
        "truths": pd.DataFrame({"x": [True, False, True]}),
        "missing": pd.DataFrame({"x": [1.0, None, 2.0]}),
    }
    for name, table in tables.items():
        table.to_parquet(f"{name}.parquet")
        observed = f"+observed.mine={{path: {name}.parquet, column: x}}"
        with pytest.raises(InputError, match=r"observed\.mine.*allowed: finite numbers"):
            make_plan(compose(["mixture=[]", observed, "model.notebook.n_components=2"]))
    (workspace / "folder.csv").mkdir()
    observed = "+observed.mine={path: folder.csv, column: x}"
    with pytest.raises(InputError, match="no such file"):
        make_plan(compose(["mixture=[]", observed, "model.notebook.n_components=2"]))


def test_observed_data_need_the_number_of_components(workspace):
    (workspace / "my.csv").write_text("x\n1\n2\n5\n")
    with pytest.raises(InputError, match="n_components"):
        make_plan(compose(["mixture=[]", "+observed.mine={path: my.csv, column: x}"]))


@pytest.mark.parametrize("name", [name for name, init in INITS.items() if init.needs_truth])
def test_observed_data_have_no_truth_to_start_from(name, workspace):
    (workspace / "my.csv").write_text("x\n1\n2\n5\n")
    observed = "+observed.mine={path: my.csv, column: x}"
    settings = ["mixture=[]", observed, "model.notebook.n_components=2", f"init=[{name}]"]
    with pytest.raises(InputError, match=f"init: {name} needs a known truth"):
        make_plan(compose(settings))


CLAIM = "name: c, claim: a, source: b"


def test_an_experiment_file_without_its_first_line_is_told(tmp_path, monkeypatch):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    lines = "# mine\n# @package _global_\ndefaults:\n  - override /mixture: [overlap_low]\n"
    (conf / "experiment" / "mine.yaml").write_text(lines)
    monkeypatch.setattr("pipeline.config.CONF", conf)
    with pytest.raises(InputError, match="first line # @package _global_"):
        compose(["experiment=mine"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("claims: {a: 1}", "claims: got {'a': 1}; allowed: a list, [a,b]"),
        ("measures: {}", "measures: got {}; allowed: a list, [a,b]"),
        (
            "targets: {log_likelihood_gap: {a: 1}}",
            "targets.log_likelihood_gap: got {'a': 1}; allowed: a list, [a,b]",
        ),
        ("schedule: [1]", "schedule: got [1]; allowed: a mapping, {key: value}"),
    ],
)
def test_a_mapping_for_a_list_in_an_experiment_file_is_told(text, words, tmp_path, monkeypatch):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    lines = f"# @package _global_\ntitle: mine\nseed: 3\n{text}\n"
    (conf / "experiment" / "mine.yaml").write_text(lines)
    monkeypatch.setattr("pipeline.config.CONF", conf)
    with pytest.raises(InputError) as error:
        compose(["experiment=mine"])
    assert str(error.value) == f"conf/experiment/mine.yaml: {words}"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("claims_level=1", "claims_level: got 1.0; allowed: a number from 0.5"),
        ("claims=3", "claims: got 3; allowed: a list of mappings"),
        ("claims=[3]", "claims: got [3]; allowed: a list of mappings"),
        ("slopes=[{name: law, statistic: a, factor: b, where: x}]", "slopes[0].where: got 'x'"),
        ("slopes=[{name: law, statistic: a}]", "factor"),
        ("slopes=[{name: law, statistic: a, factor: b, what: c}]", "unknown key; allowed here"),
        ("slopes=[{name: 3, statistic: a, factor: b}]", "slopes[0].name: got 3; allowed: text, w"),
        (
            "claims=[{name: 1e3, claim: a, source: b, statistic: x, at_most: 1}]",
            "claims[0].name: got 1000.0; allowed: text, which a number is in quotes: '1000.0'",
        ),
        ("slopes=[{name: a b, statistic: a, factor: b}]", "slopes[0].name: got 'a b'"),
        ("slopes=[{name: l, statistic: a, factor: init, by: [init]}]", "l: by: got 'init'"),
        ("slopes=[{name: l, statistic: a, factor: b, where: {init: no}}]", "where.init: got 'no'"),
        (f"claims=[{{{CLAIM}, at_most: 1}}]", "c: got 'neither'; allowed: statistic or slope"),
        (f"claims=[{{{CLAIM}, statistic: x, slope: y, at_most: 1}}]", "'statistic and slope'"),
        (
            f"claims=[{{{CLAIM}, slope: y, at_most: 1}}]",
            "slope: got 'y'; allowed: none: the experiment has no",
        ),
        (f"claims=[{{{CLAIM}, at_most: '1'}}]", "claims[0].at_most: got '1'; allowed: a number"),
        (f"claims=[{{{CLAIM}, at_most: [1]}}]", "claims[0].at_most: got [1]; allowed: a number"),
        (
            f"claims=[{{{CLAIM}, statistic: x, at_most: 1}}, {{{CLAIM}, at_mots: 1}}]",
            "claims[1].at_mots: unknown key; allowed here: name, claim, source",
        ),
        (f"claims=[{{{CLAIM}, between: [1, '2']}}]", "claims[0].between[1]: got '2'; allowed: a n"),
        (f"claims=[{{{CLAIM}, between: 1}}]", "claims[0].between: got 1; allowed: a list"),
        (
            f"claims=[{{{CLAIM}, statistic: x, at_most: 1, allowed_missing: null}}]",
            "claims[0].allowed_missing: got None; allowed: a number",
        ),
        (f"claims=[{{{CLAIM}, slope: {{a: 1}}, at_most: 1}}]", "claims[0].slope: got {'a': 1}"),
        (
            "slopes=[{name: l, statistic: a, factor: [b]}]",
            "slopes[0].factor: got ['b']; allowed: t",
        ),
        (
            "slopes=[{name: l, statistic: a, factor: b, by: c}]",
            "slopes[0].by: got 'c'; allowed: a l",
        ),
        (
            "replay=[{rule: aitken, tolerances: [1], patience: 1.5}]",
            "replay[0].patience: got 1.5; allowed: an integer",
        ),
        ("replay=[{rule: aitken, tolerances: [1,'2']}]", "replay[0].tolerances[1]: got '2'"),
        (f"claims=[{{{CLAIM}, statistic: x}}]", "c: got 'no region'; allowed: expected"),
        (f"claims=[{{{CLAIM}, statistic: x, expected: 1}}]", "c: got 'expected'; allowed"),
        (
            f"claims=[{{{CLAIM}, statistic: x, at_most: 1, at_least: 0}}]",
            "c: got 'at_least, at_most'",
        ),
        (
            f"claims=[{{{CLAIM}, statistic: x, at_most: .nan}}]",
            "claims[0].at_most: got '.nan'; allowed: a number",
        ),
        (f"claims=[{{{CLAIM}, statistic: x, at_most: nan}}]", "at_most: got nan; allowed: finite"),
        (f"claims=[{{{CLAIM}, statistic: x, expected: 1, margin: 0}}]", "margin: got 0.0; allowed"),
        (
            f"claims=[{{{CLAIM}, statistic: x, between: [1, 0]}}]",
            "between: got [1.0, 0.0]; allowed",
        ),
        (f"claims=[{{{CLAIM}, statistic: x, at_most: 1, allowed_missing: 2}}]", "allowed_missing"),
        (
            f"claims=[{{{CLAIM}, statistic: x, at_most: 1, where: {{size: 2}}}}]",
            "got 'size'; allowed",
        ),
        ("claims=[{name: c, claim: '', source: b, statistic: x, at_most: 1}]", "c: claim: got ''"),
        (
            f"claims=[{{{CLAIM}, statistic: x, at_most: 1}},{{{CLAIM}, statistic: x, at_most: 2}}]",
            "claims: name: got ['c', 'c']; allowed: every entry once",
        ),
    ],
)
def test_slopes_and_claims_that_cannot_be_judged_are_refused(override, words):
    with pytest.raises(InputError) as error:
        compose([override])
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_the_largest_and_smallest_units_are_allowed():
    for size in (1e150, 1e-150):
        compose([f"mixture.notebook.scales=[{size},{size}]", f"mixture.notebook.means=[0,-{size}]"])
