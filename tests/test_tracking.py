"""The runs in MLflow against the files they mirror, through MLflow's own client."""

import os
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from pipeline import tracking
from pipeline.errors import TrackingError
from pipeline.plan import read_plan, write_plan
from pipeline.stages import track as stages_track
from pipeline.stages.track import LINKS, links_page, track
from pipeline.tables import STATISTICS, write_statistics
from pipeline.terminal import _next_steps
from pipeline.tracking import Tracked
from pipeline.tracking.stores import PATIENCE
from pipeline.views import make_view
from tests.conftest import ROOT
from tests.factories import Study, make_study, write_tables
from tests.servers import free_port, mlflow_server, proxy, refusing_server, silent_server

# What MLflow itself does with its libraries is not this project's.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")

OVERRIDES = (
    "mixture=[overlap_low]",
    "model=[free]",
    "init=[random_points,kmeans_pp]",
    "replicates=3",
    "schedule.max_iter=30",
    "schedule.snapshots=[0,3,17]",
)


@pytest.fixture(scope="session")
def study() -> Study:
    return make_study(*OVERRIDES)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one database, which takes seconds; tests start from copies."""
    from pipeline.tracking.stores import _create

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    _create(path, path.parent / "mlartifacts")
    return path


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, "mlflow.db")
    return tmp_path


def laid_out(study: Study, folder: Path) -> Path:
    """Write the files that `track` reads, with plain pictures."""
    plan = study.plan
    write_plan(plan, folder)
    write_tables(plan, study.fits, study.traces, folder)
    write_statistics(folder / STATISTICS, study.convergence, plan)
    pictures = folder / "figures" / "snapshots"
    pictures.mkdir(parents=True, exist_ok=True)
    for cell in plan.cells:
        for iteration in plan.config["schedule"]["snapshots"]:
            colour = (iteration, 2 * iteration, 3 * iteration)
            path = pictures / f"{cell.id}-{iteration:06d}.png"
            Image.new("RGB", (30, 20), colour).save(path)
    for name in ("overlap_low-free-gap", "overlap_low-other-gap", "overlap-free-gap", "summary"):
        Image.new("RGB", (30, 20)).save(folder / "figures" / f"{name}.png")
    (folder / "report.html").write_text("<p>report</p>")
    return folder


def with_tracking(study: Study, **settings) -> Study:
    config = study.plan.config
    tracking = config["tracking"] | settings
    return replace(study, plan=replace(study.plan, config=config | {"tracking": tracking}))


def client(path="mlflow.db"):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{Path(path).absolute()}")


def stored(path="mlflow.db") -> dict:
    """Return the active runs by (results folder, cell)."""
    store = client(path)
    experiment = store.get_experiment_by_name("notebook")
    runs = store.search_runs([experiment.experiment_id])
    keyed = {(run.data.tags["results"], run.data.tags["cell"]): run for run in runs}
    assert len(keyed) == len(runs)
    return keyed


def history(run, name: str) -> dict[int, float]:
    return {each.step: each.value for each in client().get_metric_history(run.info.run_id, name)}


def artifacts(run, folder: str | None = None) -> list[str]:
    return [each.path for each in client().list_artifacts(run.info.run_id, folder)]


def test_a_run_shows_its_cell(workspace, study):
    folder = laid_out(study, Path("results/notebook"))
    track(folder)
    runs = stored()
    assert {cell for _, cell in runs} == {cell.id for cell in study.plan.cells}
    for cell in study.plan.cells:
        run = runs["results/notebook", cell.id]
        assert run.info.status == "FINISHED"
        rows = study.traces.query("cell == @cell.id and replicate == 0 and start == 0")
        for name in ("weight_0", "weight_1", "mean_0", "mean_1", "scale_0", "scale_1"):
            wanted = dict(zip(rows["iteration"], rows[name], strict=True))
            assert history(run, f"params/{name}") == wanted
        wanted = dict(zip(rows["iteration"], rows["log_likelihood"], strict=True))
        assert history(run, "log_likelihood/representative") == wanted
        row = study.convergence.set_index("cell").loc[cell.id]
        # MLflow takes no infinite and no missing value: nothing converged, nothing is shown.
        shown = run.data.metrics.get("n_iter/median", np.nan)
        np.testing.assert_equal(shown, row["n_iter_median"])
        assert run.data.metrics["converged_share"] == row["converged_share"]
        assert run.data.metrics["statistics/rmse_mean_0"] == row["rmse_mean_0"]
        assert np.isfinite(list(run.data.metrics.values())).all()
        assert run.data.params["init"] == cell.init
        local = client().download_artifacts(run.info.run_id, "settings.yaml")
        settings = yaml.safe_load(Path(local).read_text())
        assert settings["mixture"]["means"] == [-2.0, 2.0]
        assert settings["schedule"]["snapshots"] == [0, 3, 17]
        assert study.plan.question in run.data.tags["mlflow.note.content"]
        data_set = run.inputs.dataset_inputs[0].dataset
        assert data_set.name == cell.data_set
        assert study.plan.data_set(cell).key.startswith(data_set.digest)
        assert "results/notebook/samples/overlap_low-n40.npy" in data_set.source


def test_pictures_have_the_iteration_as_step(workspace, study):
    track(laid_out(study, Path("results/notebook")))
    for run in stored().values():
        figures = ["figures/gap.png", "figures/summary.png"]
        assert artifacts(run, "figures") == figures
        assert "report.html" in artifacts(run)
        images = [path for path in artifacts(run, "images") if path.endswith(".png")]
        assert sorted(int(path.split("+")[2]) for path in images) == [0, 3, 17]
        for path in images:
            iteration = int(path.split("+")[2])
            local = client().download_artifacts(run.info.run_id, path)
            with Image.open(local) as picture:
                assert picture.getpixel((0, 0)) == (iteration, 2 * iteration, 3 * iteration)


def test_tracking_again_changes_nothing(workspace, study):
    folder = laid_out(study, Path("results/notebook"))
    track(folder)
    before = {key: run.to_dictionary() for key, run in stored().items()}
    links = (folder / LINKS).read_text()
    track(folder)
    assert {key: run.to_dictionary() for key, run in stored().items()} == before
    assert (folder / LINKS).read_text() == links


def test_the_database_can_be_deleted(workspace, study):
    folder = laid_out(study, Path("results/notebook"))
    track(folder)

    def shown() -> dict:
        return {
            key: (run.data.metrics, run.data.params, run.data.tags, run.info.run_name)
            for key, run in stored().items()
        }

    before = shown()
    client()._tracking_client.store._dispose_engine()
    Path("mlflow.db").unlink()
    shutil.rmtree("mlartifacts")
    track(folder)
    after = shown()
    assert after == before
    assert {path.name for path in workspace.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.lock"}


def test_new_content_replaces_the_run_of_its_cell_alone(workspace, study):
    folder = laid_out(study, Path("results/notebook"))
    track(folder)
    before = stored()
    first, second = study.plan.cells
    Image.new("RGB", (30, 20), "red").save(
        folder / "figures" / "snapshots" / f"{first.id}-000003.png"
    )
    track(folder)
    after = stored()
    key, other = ("results/notebook", first.id), ("results/notebook", second.id)
    assert after[key].info.run_id != before[key].info.run_id
    assert after[other].info.run_id == before[other].info.run_id
    assert client().get_run(before[key].info.run_id).info.lifecycle_stage == "deleted"

    cells = (replace(first, content="0" * 64), second)
    laid_out(replace(study, plan=replace(study.plan, cells=cells)), folder)
    track(folder)
    assert stored()[key].info.run_id not in {before[key].info.run_id, after[key].info.run_id}


def test_a_half_written_run_is_replaced(workspace, study, monkeypatch):
    folder = laid_out(study, Path("results/notebook"))
    from mlflow import MlflowClient

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", interrupted)
        with pytest.raises(KeyboardInterrupt):
            track(folder)
    half = stored()
    assert [run.info.status for run in half.values()] == ["RUNNING"]
    track(folder)
    whole = stored()
    assert [run.info.status for run in whole.values()] == ["FINISHED"] * 2
    assert not {run.info.run_id for run in half.values()} & {r.info.run_id for r in whole.values()}


def test_the_runs_of_cells_that_are_no_more_are_deleted(workspace):
    # Of other samples: a cell of the same ones has a part in the reference.
    study = make_study(*OVERRIDES, "init=[kmeans_pp]", "sample_sizes=[50,40]")
    folder = laid_out(study, Path("results/notebook"))
    track(folder)
    before = stored()
    kept = study.plan.cells[1]
    plan = replace(study.plan, cells=(kept,))
    fits, traces = (table[table["cell"] == kept.id] for table in (study.fits, study.traces))
    laid_out(Study(plan, study.samples, fits, traces), folder)
    track(folder)
    after = stored()
    assert list(after) == [("results/notebook", kept.id)]
    (run,) = after.values()
    assert run.data.tags["cell"] == kept.id
    assert run.info.run_name == "overlap_low n40"
    assert run.info.run_id == before["results/notebook", kept.id].info.run_id


def test_folders_do_not_touch_each_others_runs(workspace, study):
    one = laid_out(study, Path("results/multirun/0/notebook"))
    two = laid_out(study, Path("it's another/notebook").absolute())
    track(one)
    before = stored()
    track(two)
    after = stored()
    assert {folder for folder, _ in after} == {
        "results/multirun/0/notebook",
        "it's another/notebook",
    }
    assert all(after[key].info.run_id == run.info.run_id for key, run in before.items())
    assert len(after) == 2 * len(before)


def test_a_copy_of_the_project_tracks_into_its_workspace(workspace, study, monkeypatch):
    track(laid_out(study, Path("results/notebook")), workspace=".", copy="of no account")
    before = stored()
    description = client().get_experiment_by_name("notebook").tags["mlflow.note.content"]
    overridden = Study(**{**vars(study), "plan": replace(study.plan, overrides=("seed=7",))})
    for name, other in {"seven": overridden, "edited": study}.items():
        copy = workspace / "copies" / "random name"
        copy.mkdir(parents=True)
        with monkeypatch.context() as patch:
            patch.chdir(copy)
            for _ in range(2):
                folder = laid_out(other, Path("results/notebook"))
                track(folder, workspace=str(workspace), copy=name)
            links = Links((folder / LINKS).read_text()).found
        assert not list(copy.glob("ml*"))
        shutil.rmtree(workspace / "copies")
        runs = stored()
        for cell in study.plan.cells:
            run = runs[f"{name}:results/notebook", cell.id]
            assert run.info.run_name == f"{name} {cell.init}"
            assert run.data.params.get("overrides") == ("seed=7" if name == "seven" else None)
            assert f"/runs/{run.info.run_id}" in links[cell.id]
            assert len(artifacts(run, "images")) == 6
    assert len(runs) == 6
    assert all(runs[key].info.run_id == run.info.run_id for key, run in before.items())
    tags = client().get_experiment_by_name("notebook").tags
    assert tags["mlflow.note.content"] == description
    assert {key for key in tags if "View" in key} == {
        make_view(study.plan.cells, overrides).tag for overrides in ([], ["seed=7"])
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["workspace=nowhere", "copy=a"], "workspace: got "),
        (["workspace=..", "copy="], "copy: got ''"),
    ],
)
def test_a_copy_has_a_workspace_and_a_name(workspace, study, command, arguments, message):
    folder = laid_out(study, Path("results/notebook"))
    done = command("pipeline.stages.track", str(folder), *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")


def test_two_processes_may_be_the_first_at_once(tmp_path, monkeypatch, study):
    monkeypatch.chdir(tmp_path)
    folders = [laid_out(study, Path(f"results/{k}/notebook")) for k in range(2)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "pipeline.stages.track"]
    processes = [
        subprocess.Popen([*line, folder], env=environment, stderr=subprocess.PIPE, text=True)
        for folder in folders
    ]
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert {folder for folder, _ in stored()} == {"results/0/notebook", "results/1/notebook"}


def shared(study: Study, backend: str, database: Path, folder: str = "results/notebook") -> Path:
    """Lay a study out whose runs go to a database elsewhere, to which others log too."""
    settings = {"backend": backend, "uri": f"sqlite:///{database}"}
    return laid_out(with_tracking(study, **settings), Path(folder))


@pytest.mark.parametrize("backend", ["server", "sqlite"])
def test_workspaces_that_share_a_store_do_not_touch_each_others_runs(
    workspace, study, monkeypatch, backend
):
    store = workspace / "mlflow.db"

    def shown(owner: str) -> dict:
        """Return the ids of a workspace's runs by cell, each of which has one."""
        runs = client(store).search_runs([notebook.experiment_id])
        ids = [(r.data.tags["cell"], r.info.run_id) for r in runs if of(r) == owner]
        assert len(dict(ids)) == len(ids)
        return dict(ids)

    def of(run) -> str:
        return run.data.tags.get("workspace", "")

    ids = {}
    for user in ("one", "two"):
        (workspace / user).mkdir()
        monkeypatch.chdir(workspace / user)
        track(shared(study, backend, store))
        ids[user] = Path(".mlflow_workspace").read_text().split()[0]
        notebook = client(store).get_experiment_by_name("notebook")
    before = {user: shown(ids[user]) for user in ids}
    assert [len(runs) for runs in before.values()] == [2, 2]
    # What changes is replaced, what does not stays: of two cells, one.
    monkeypatch.chdir(workspace / "two")
    folder = shared(study, backend, store)
    changed = study.plan.cells[0].id
    picture = folder / "figures" / "snapshots" / f"{changed}-000003.png"
    Image.new("RGB", (30, 20), "red").save(picture)
    track(folder)
    after = {user: shown(ids[user]) for user in ids}
    assert after["one"] == before["one"]
    assert {cell for cell in before["two"] if after["two"][cell] != before["two"][cell]} == {
        changed
    }
    # A copy of a workspace is another one.
    shutil.copytree(workspace / "two", workspace / "three")
    monkeypatch.chdir(workspace / "three")
    track(Path("results/notebook"))
    assert shown(ids["two"]) == after["two"]
    assert Path(".mlflow_workspace").read_text().split()[0] not in ids.values()
    # The store's own workspace has the same folder, and runs without a tag.
    monkeypatch.chdir(workspace)
    track(laid_out(study, Path("results/notebook")))
    assert {user: shown(ids[user]) for user in ids} == after
    assert not Path(".mlflow_workspace").exists()


def test_a_copy_tracks_into_a_shared_store_for_its_workspace(workspace, study, monkeypatch):
    store = workspace / "elsewhere" / "mlflow.db"
    store.parent.mkdir()
    shutil.copy("mlflow.db", store)
    home = workspace / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    track(shared(study, "server", store))
    for number in range(2):
        copy = home / "copies" / str(number)
        copy.mkdir(parents=True)
        monkeypatch.chdir(copy)
        track(shared(study, "server", store), workspace=str(home), copy="seven")
        assert not Path(".mlflow_workspace").exists()
    runs = stored(store)
    assert {folder for folder, _ in runs} == {"results/notebook", "seven:results/notebook"}
    assert len({run.data.tags["workspace"] for run in runs.values()}) == 1


def test_one_process_at_a_time_tracks_to_a_server(workspace, study, monkeypatch):
    folder = shared(study, "server", workspace / "mlflow.db")
    both_have_looked = Barrier(2)
    looked = tracking._present

    def look(*arguments):
        found = looked(*arguments)
        with suppress(BrokenBarrierError):
            both_have_looked.wait(timeout=1)
        return found

    monkeypatch.setattr(tracking, "_present", look)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(track, [folder, folder]))
    assert len(stored()) == len(study.plan.cells)


def test_steps_are_thinned_but_for_snapshots(workspace, study):
    track(laid_out(with_tracking(study, max_steps=8), Path("results/notebook")))
    for run in stored().values():
        for name in ("params/mean_0", "log_likelihood/representative", "log_likelihood_gap/median"):
            steps = set(history(run, name))
            assert len(steps) <= 8
            assert {0, 3, 17, 30} <= steps


def test_only_recorded_trajectories_make_the_gap(workspace):
    study = make_study(*OVERRIDES, "schedule.record_replicates=2")
    track(laid_out(study, Path("results/notebook")))
    for (_, cell), run in stored().items():
        rows = study.traces[(study.traces["cell"] == cell) & (study.traces["replicate"] < 2)]
        likelihoods = rows.pivot(index="iteration", columns="replicate", values="log_likelihood")
        wanted = (likelihoods.iloc[-1] - likelihoods).median(axis=1).to_dict()
        assert history(run, "log_likelihood_gap/median") == pytest.approx(wanted)


def test_an_experiment_that_another_workspace_makes_meanwhile_is_taken(workspace, monkeypatch):
    from mlflow import MlflowClient

    store = MlflowClient("sqlite:///shared.db")
    made = store.create_experiment("notebook")
    answers, look = iter([None]), store.get_experiment_by_name
    monkeypatch.setattr(store, "get_experiment_by_name", lambda name: next(answers, look(name)))
    opened = tracking.Store(store, "http://127.0.0.1:1", None, "owner")
    assert tracking._experiment(opened, "notebook", {"a": "b"}) == made
    assert look("notebook").tags["a"] == "b"


def test_a_moved_store_gets_a_new_experiment(workspace, study, monkeypatch):
    track(laid_out(study, Path("results/notebook")))
    before = stored()
    moved = workspace / "moved"
    moved.mkdir()
    for name in ("mlflow.db", "mlartifacts", "results"):
        shutil.copytree(name, moved / name) if Path(name).is_dir() else shutil.copy(name, moved)
    monkeypatch.chdir(moved)
    track(Path("results/notebook"))
    after = stored()
    assert after.keys() == before.keys()
    for run in after.values():
        assert str(moved) in run.info.artifact_uri
        assert len(artifacts(run, "images")) == 6


def test_no_backend_no_store(tmp_path, monkeypatch, study):
    monkeypatch.chdir(tmp_path)
    track(laid_out(with_tracking(study, backend="none"), Path("results/notebook")))
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    assert not (tmp_path / "results" / "notebook" / LINKS).exists()


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"backend": "server", "uri": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        ({"backend": "sqlite", "uri": "sqlite:///text.db"}, "sqlite:///text.db"),
        ({"backend": "sqlite", "uri": "sqlite://"}, "sqlite:///file.db"),
    ],
    ids=["no server", "not a database", "no file"],
)
def test_an_unusable_store_is_told_in_one_line(tmp_path, monkeypatch, study, settings, part):
    monkeypatch.chdir(tmp_path)
    Path("text.db").write_text("This is a text, and a text is not a database." * 100)
    folder = laid_out(with_tracking(study, **settings), Path("results/notebook"))
    with pytest.raises(TrackingError) as caught:
        track(folder)
    message = str(caught.value)
    assert part in message
    assert "python -m pipeline.stages.track results/notebook" in message
    assert "\n" not in message


def test_a_server_that_goes_in_the_middle_is_told_and_made_up_for(tmp_path, monkeypatch, study):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    folder = laid_out(with_tracking(study, backend="server", uri=address), Path("results/notebook"))
    with ExitStack() as stack:
        stack.enter_context(mlflow_server(tmp_path, port))
        detailed = stages_track.run_details

        def last(*arguments):
            stack.close()
            return detailed(*arguments)

        monkeypatch.setattr(stages_track, "run_details", last)
        with pytest.raises(TrackingError) as caught:
            track(folder)
        told, remedy = str(caught.value).split("; ")
        assert told == (f"tracking.uri {address}: the server answers no more (Connection refused)")
        assert remedy.startswith("the files are complete, track later: python -m")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with mlflow_server(tmp_path, port):
        for _ in range(2):
            track(folder)
            served = MlflowClient(address)
            (experiment,) = served.search_experiments(filter_string="name = 'notebook'")
            runs = served.search_runs([experiment.experiment_id])
            assert len(runs) == len(study.plan.cells)
            assert {run.info.status for run in runs} == {"FINISHED"}
    assert (folder / LINKS).is_file()


def served(address: str) -> list:
    """Return the notebook's runs on a server."""
    from mlflow import MlflowClient

    store = MlflowClient(address)
    (experiment,) = store.search_experiments(filter_string="name = 'notebook'")
    return store.search_runs([experiment.experiment_id])


def test_a_server_that_never_answers_is_given_up_and_made_up_for(command, workspace):
    folder = workspace / "results" / "notebook"
    with silent_server() as address:
        done = command("pipeline", "tracking=server", f"tracking.uri={address}", "report=minimal")
        assert done.returncode == 3, done.stderr
        # Far less than MLflow would wait.
        again = command("pipeline.stages.track", "experiment=notebook", timeout=60)
        assert again.returncode == 3, again.stderr
    for told in (done.stderr, again.stderr):
        assert f"{address}: no server answers (timed out)" in told
        assert "track later: python -m pipeline.stages.track results/notebook" in told
    assert (folder / "report.html").is_file()
    assert len(pd.read_parquet(folder / "fits")) == 1
    with mlflow_server(workspace, int(address.rpartition(":")[2])):
        for _ in range(2):
            assert command("pipeline.stages.track", "experiment=notebook").returncode == 0
            assert [run.info.status for run in served(address)] == ["FINISHED"]


def test_a_server_that_hangs_in_the_middle_is_given_up_and_made_up_for(
    tmp_path, monkeypatch, study
):
    monkeypatch.chdir(tmp_path)
    folder = Path("results/notebook")
    with mlflow_server(tmp_path) as address:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        with proxy(address, answers=lambda path: "log-batch" not in path) as (hanging, _):
            laid_out(with_tracking(study, backend="server", uri=hanging), folder)
            began = time.monotonic()
            with pytest.raises(TrackingError, match=r"none of 2 within 1 s.*track later"):
                track(folder)
            assert time.monotonic() - began < 60
        assert [run.info.status for run in served(address)] == ["RUNNING"]
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        laid_out(with_tracking(study, backend="server", uri=address), folder)
        track(folder)
        assert [run.info.status for run in served(address)] == ["FINISHED"] * 2


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, r"failed with error code 401 .*\[\.\.\.\]"),
        (503, r"the server answers no more \(too many 503 error responses\)"),
        (None, r"the server answers no more \(Remote end closed connection without response\)"),
    ],
)
def test_a_server_that_refuses_is_told_in_short_and_gets_the_password(
    workspace, study, monkeypatch, status, told
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    with refusing_server(status) as (address, asked):
        folder = with_tracking(study, backend="server", uri=address)
        with pytest.raises(TrackingError, match=told) as caught:
            track(laid_out(folder, Path("results/notebook")))
    assert len(str(caught.value)) < 400
    assert [path.partition("?")[0].split("/")[-1] for path, _ in asked] == ["health", "get-by-name"]
    assert {sent for _, sent in asked} == {"Basic " + b64encode(b"me:secret").decode()}


def test_a_slow_server_is_asked_few_times(tmp_path, monkeypatch, study):
    monkeypatch.chdir(tmp_path)
    with mlflow_server(tmp_path) as address, proxy(address, delay=0.2) as (slow, requests):
        folder = laid_out(
            with_tracking(study, backend="server", uri=slow), Path("results/notebook")
        )
        track(folder)
        assert [run.info.status for run in served(address)] == ["FINISHED"] * 2
        files = ("settings.yaml", "report.html", "figures/gap.png", "figures/summary.png")
        # A picture is two files and a tag; a run is made, described, given its parameters and
        # metrics, looked up and closed.
        per_run = 3 * len(study.plan.config["schedule"]["snapshots"]) + len(files) + 6
        assert len(requests) <= 4 + len(study.plan.cells) * per_run
        requests.clear()
        track(folder)
        assert len(requests) == 3


def test_the_wait_for_a_server_is_bounded():
    retries, seconds = map(int, PATIENCE.values())
    # Before the first retry none, then 4 seconds, 8 and so on; each with a jitter of up to two.
    waits = sum(2 ** (1 + k) for k in range(1, retries)) + 2 * retries
    assert waits <= 20
    assert (1 + retries) * seconds + waits <= 100


class Links(HTMLParser):
    """Collect the links of a page and their texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.address = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        """Remember where a link leads."""
        self.address = dict(attributes).get("href", "") if tag == "a" else ""

    def handle_data(self, data):
        """Take the text of a link."""
        if self.address:
            self.found[data] = self.address
            self.address = ""


def test_links_lead_from_cells_to_runs(workspace, study):
    folder = laid_out(study, Path("results/notebook"))
    track(folder)
    links = Links((folder / LINKS).read_text()).found
    for (_, cell), run in stored().items():
        assert f"/runs/{run.info.run_id}" in links[cell]
        assert links[cell].startswith("http://127.0.0.1:5000/#/experiments/")


def test_titles_are_text_on_the_page_of_links(study):
    plan = replace(study.plan, title="<script>&")
    page = links_page(
        plan, Tracked("http://x/", "http://y/", {"a<b": "http://x/?a=1&b=2"}, 0, 1, 0)
    )
    assert "<script>" not in page
    assert Links(page).found["a<b"] == "http://x/?a=1&b=2"


def test_where_the_runs_are_is_said_for_each_backend(study, tmp_path):
    tracked = Tracked("http://x/", "http://y/", {}, 0, 0, 0)
    for backend, uri, where in (
        ("sqlite", None, "make ui"),
        ("server", "http://h:5", "http://h:5"),
    ):
        plan = with_tracking(study, backend=backend, uri=uri).plan
        for told in (links_page(plan, tracked), "\n".join(_next_steps(plan, tmp_path))):
            assert where in told
            assert ("make ui" in told) == (backend == "sqlite")


def test_statistics_decide_the_content(workspace, study):
    folder = laid_out(study, Path("results/notebook"))
    track(folder)
    before = stored()
    table = pd.read_parquet(folder / "convergence.parquet")
    table.loc[0, "bias_mean_0"] += 1e-12
    write_statistics(folder / STATISTICS, table, read_plan(folder))
    track(folder)
    after = stored()
    changed = [key for key, run in after.items() if run.info.run_id != before[key].info.run_id]
    assert changed == [("results/notebook", table.loc[0, "cell"])]


def test_lost_artifacts_are_noticed_and_old_ones_removed(workspace):
    folder = laid_out(make_study(*OVERRIDES), workspace / "results/notebook")
    track(folder)
    before = {run.info.run_id for run in stored().values()}
    shutil.rmtree("mlartifacts")
    track(folder)
    after = {run.info.run_id for run in stored().values()}
    assert not before & after
    assert {path.name for path in Path("mlartifacts/notebook").iterdir()} == after
    track(folder)
    assert {run.info.run_id for run in stored().values()} == after
