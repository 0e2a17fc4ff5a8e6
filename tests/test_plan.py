"""Identities: what changes a cell's numbers and what must not."""

from pathlib import Path

import pytest

from pipeline.config import compose
from pipeline.errors import InputError
from pipeline.plan import digest, read_plan, write_plan
from pipeline.planning import make_plan

BASE = ("experiment=convergence", "mixture=[overlap_low]", "sample_sizes=[50]", "init=[quantiles]")


def plan_of(*overrides: str):
    return make_plan(compose([*BASE, *overrides]))[0]


def only_cell(*overrides: str):
    (cell,) = plan_of(*overrides).cells
    return cell


def test_cells_are_the_grid_in_the_order_of_the_config():
    plan = plan_of(
        "mixture=[notebook,overlap_low]", "sample_sizes=[50,20]", "init=[truth,quantiles]"
    )
    assert [cell.id for cell in plan.cells][:3] == [
        "notebook-free-n50-truth-em",
        "notebook-free-n50-quantiles-em",
        "notebook-free-n20-truth-em",
    ]
    assert len(plan.cells) == 8
    assert [data.id for data in plan.data_sets] == [
        "notebook-n50",
        "notebook-n20",
        "overlap_low-n50",
        "overlap_low-n20",
    ]


def test_adding_to_the_grid_changes_no_identity():
    before = {cell.id: cell for cell in plan_of().cells}
    after = {
        cell.id: cell
        for cell in plan_of(
            "mixture=[notebook,overlap_low]",
            "sample_sizes=[20,50]",
            "init=[kmeans_pp,quantiles]",
            "model=[shared_scale,free]",
        ).cells
    }
    assert before.items() <= after.items()
    assert len(after) == 16
    assert len({cell.content for cell in after.values()}) == 16


def test_traces_that_are_not_kept_are_told():
    remarks = make_plan(compose([*BASE, "replicates=7", "schedule.record_replicates=3"]))[1]
    assert any("first 3 replicates" in remark for remark in remarks)
    assert not make_plan(compose([*BASE, "replicates=3", "schedule.record_replicates=3"]))[1]


REPLAY = "replay=[{rule: aitken, tolerances: [1e-6]}]"


def test_replayed_rules_of_traces_that_are_not_kept_are_told():
    asked = [*BASE, "schedule.record=all", REPLAY]
    remarks = make_plan(compose([*asked, "replicates=7", "schedule.record_replicates=3"]))[1]
    assert any("replay" in remark and "first 3 replicates" in remark for remark in remarks)
    assert not make_plan(compose(asked))[1]


def test_replayed_rules_rerun_no_fit():
    plans = [plan_of("schedule.record=all", replay) for replay in ("replay=[]", REPLAY)]
    assert plans[0].cells == plans[1].cells
    hashes = [plan.hashes for plan in plans]
    assert hashes[0]["fit"] == hashes[1]["fit"]
    assert hashes[0]["aggregate"] != hashes[1]["aggregate"]


def test_samples_that_are_not_compressed_can_be_replayed():
    large = ["sample_sizes=[30000,inf]", "schedule.record=all", REPLAY]
    assert len(plan_of(*large, "compression=none").cells) == 2


def test_the_population_has_one_replicate_and_no_samples():
    plan, remarks = make_plan(compose([*BASE, "sample_sizes=[50,inf]", "replicates=7"]))
    sample, population = plan.data_sets
    assert (sample.replicates, population.replicates) == (7, 1)
    assert population.file is None
    assert population.id == "overlap_low-ninf"
    assert any("population" in remark for remark in remarks)
    assert plan.has_population and not plan_of().has_population


@pytest.mark.parametrize("size", ["50", "50000", "inf"])
@pytest.mark.parametrize("override", ["compression=none", "compression_tolerance=1e-9"])
def test_only_what_is_compressed_depends_on_how(size, override):
    if size == "inf" and override == "compression=none":
        pytest.skip("a population has no points to fall back to")
    before = only_cell(f"sample_sizes=[{size}]").content
    assert (only_cell(f"sample_sizes=[{size}]", override).content == before) == (size == "50")


@pytest.mark.parametrize(
    "override",
    [
        "replicates=7",
        "starts=3",
        "schedule.snapshots=[1]",
        "title=another",
        "tracking=none",
        "executor.workers=1",
        "store_dir=elsewhere",
        "results_dir=elsewhere",
        "report=minimal",
        "mixture.overlap_low.source=another",
    ],
)
def test_what_changes_no_number_changes_no_content(override):
    assert only_cell(override).content == only_cell().content


@pytest.mark.parametrize(
    "override",
    [
        "seed=7",
        "mixture.overlap_low.scales=[1.0,1.5]",
        "mixture.overlap_low.allocation=proportional",
        "sample_sizes=[51]",
        "model.free.scales=shared",
        "init.quantiles.method=truth",
        "schedule.max_iter=3",
        "schedule.stop.tolerance=1e-3",
        "schedule.stop.rule=parameter",
        "schedule.record=all",
        "schedule.record_replicates=1",
        "degeneracy.scale=1e-3",
        "degeneracy.count=1e-3",
    ],
)
def test_what_changes_numbers_changes_the_content(override):
    assert only_cell(override).content != only_cell().content


def test_common_random_numbers():
    plan = plan_of("init=[quantiles,kmeans_pp]", "model=[free,shared_scale]")
    assert len({cell.data_set for cell in plan.cells}) == 1
    assert len({cell.start_key for cell in plan.cells}) == 4
    faster = plan_of("schedule.max_iter=3", "degeneracy.scale=1e-3")
    assert faster.cells[0].start_key == plan_of().cells[0].start_key


def test_options_of_an_init_change_what_depends_on_them_alone():
    """And the identity of a start without options is that of its method's name."""
    cell = only_cell()
    numbers = [2, "free", "free", "free"]
    data = plan_of().data_sets[0]
    seed = plan_of().config["seed"]
    assert (
        cell.start_key == digest(["start", seed, data.key, {"method": "quantiles"}, numbers])[:32]
    )
    given = only_cell("init=[kmeans]", "init.kmeans.iterations=100")
    assert given == only_cell("init=[kmeans]", "init.kmeans.iterations=null")
    assert given == only_cell("init=[]", "+init.kmeans={method: kmeans}")
    other = only_cell("init=[kmeans]", "init.kmeans.iterations=99")
    assert given.start_key != other.start_key
    assert given.content != other.content
    # A number is the same however it is written.
    whole = "+init.mine={method: explicit, weights: [0.5,0.5], means: [0,1], scales: [1,2]}"
    assert only_cell("init=[]", whole) == only_cell("init=[]", whole.replace("[0,1]", "[0.0,1.0]"))


def test_a_lattice_has_a_start_for_each_of_its_points():
    plan, remarks = make_plan(compose([*BASE, "init=[grid,kmeans]", "starts=3"]))
    assert {cell.init: cell.starts for cell in plan.cells} == {"grid": 100, "kmeans": 3}
    assert "init grid: 100 starts for 2 components (the points of its lattice)" in remarks
    assert only_cell("init=[grid]", "init.grid.points=7").starts == 49
    three = only_cell("init=[grid]", "mixture=[marron_wand_09_trimodal]")
    assert three.starts == 1000
    symmetric = only_cell("init=[grid]", "model=[symmetric]")
    assert symmetric.starts == 10


def test_a_mixture_under_another_name_draws_the_same_sample():
    inline = "+mixture.twin={weights: [0.5,0.5], means: [0,2], scales: [2,1]}"
    plan = plan_of(inline, "mixture=[notebook]", "mixture.notebook.allocation=multinomial")
    keys = {data.mixture: data.key for data in plan.data_sets}
    assert keys["twin"] == keys["notebook"]


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("schedule.snapshots=[1]", {"report", "track"}),
        ("title=another", {"report", "track"}),
        ("mixture.overlap_low.source=another", {"report", "track"}),
        ("tracking.max_steps=10", {"track"}),
        ("executor.workers=1", set()),
        ("store_dir=elsewhere", set()),
        ("results_dir=elsewhere", set()),
        ("reference.tolerance=0.01", {"aggregate", "report", "track"}),
        ("schedule.max_iter=3", {"fit", "aggregate", "report", "track"}),
        ("init=[truth]", {"fit", "aggregate", "report", "track"}),
        ("replicates=7", {"generate", "fit", "aggregate", "report", "track"}),
        ("seed=7", {"generate", "fit", "aggregate", "report", "track"}),
    ],
)
def test_each_stage_has_a_hash_of_what_it_reads(override, changed):
    before, after = plan_of().hashes, plan_of(override).hashes
    assert {stage for stage in before if before[stage] != after[stage]} == changed


def test_only_keeps_matching_cells():
    wide = ("mixture=[notebook,overlap_low]", "sample_sizes=[20,50]", "init=[truth,quantiles]")
    some = plan_of(*wide, "only=[{mixture: notebook, init: truth}, {sample_size: 20}]")
    every = plan_of(*wide)
    wanted = [
        cell
        for cell in every.cells
        if (cell.mixture == "notebook" and cell.init == "truth") or cell.sample_size == 20
    ]
    assert list(some.cells) == wanted
    assert {data.id for data in some.data_sets} == {cell.data_set for cell in wanted}
    with pytest.raises(InputError, match="only"):
        plan_of(*wide, "only=[]")


def test_one_of_a_kind(workspace: Path):
    (workspace / "my.csv").write_text("x,other\n1,2\n2,3\n4,4\n4.5,1\n")
    data = ["mixture=[]", "+observed.mine={path: my.csv, column: x}", "model.free.n_components=2"]
    settings = ["init=[quantiles,kmeans_pp]", "starts=5", "replicates=9"]
    plan, remarks = make_plan(compose(["experiment=convergence", *data, *settings]))
    by_init = {cell.init: cell for cell in plan.cells}
    assert {cell.replicates for cell in plan.cells} == {1}
    assert (by_init["quantiles"].starts, by_init["kmeans_pp"].starts) == (1, 5)
    assert by_init["quantiles"].sample_size == 4
    assert any("one start" in remark for remark in remarks)
    assert any("one replicate" in remark for remark in remarks)


def test_the_plan_survives_its_file(workspace: Path):
    plan = plan_of("+mixture.x={weights: [0.1,0.9], means: [-1e-300,1e5], scales: [3,0.1]}")
    write_plan(plan, workspace)
    assert read_plan(workspace) == plan
    text = (workspace / "plan.yaml").read_text()
    assert str(workspace) not in text
    write_plan(plan, workspace)
    assert (workspace / "plan.yaml").read_text() == text


def test_no_plan_is_told(workspace: Path):
    with pytest.raises(InputError, match=r"plan\.yaml"):
        read_plan(workspace)
