"""The pipeline end to end: tables, their contracts, and the same bytes whatever the way there."""

import errno
import hashlib
import logging
import math
import os
import shutil
import time
from pathlib import Path
from pickle import UnpicklingError
from threading import Event, active_count
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from pipeline import blocks
from pipeline.__main__ import job_folder, main, run_stages
from pipeline.collect import collect
from pipeline.command import exit_status
from pipeline.config import compose
from pipeline.errors import InputError
from pipeline.plan import read_plan
from pipeline.stages.aggregate import aggregate
from pipeline.stages.fit import fit
from pipeline.stages.generate import generate
from pipeline.stages.plan import plan
from pipeline.stages.report import report
from pipeline.stages.track import track
from pipeline.tables import read_fits, read_statistics, read_traces

TRACKED = {"backend": "sqlite", "uri": None, "max_steps": 64}
QUICK = ("tracking=none", "report=minimal")
STUDY = (
    "experiment=convergence",
    "mixture=[notebook,marron_wand_09_trimodal]",
    "sample_sizes=[30]",
    "init=[random_points]",
    "replicates=21",
    "schedule.max_iter=60",
    *QUICK,
)
FITS_COLUMNS = (
    "cell mixture observed model sample_size init algorithm replicate start fit_id outcome n_iter "
    "map_evaluations log_likelihood log_likelihood_start log_likelihood_truth weight_0 weight_1 "
    "weight_2 mean_0 mean_1 mean_2 scale_0 scale_1 scale_2 relabelled rate_observed rate_theory "
    "map_residual compression_error_bound likelihood_evaluations n_floored log_penalty stop_rule "
    "stop_value sample_scale "
    "aic bic icl"
).split()
TRACES_COLUMNS = (
    "cell replicate start iteration map_evaluations log_likelihood map_residual parameter_change "
    "weight_0 weight_1 weight_2 mean_0 mean_1 mean_2 scale_0 scale_1 scale_2"
).split()


def numbers(*overrides: str, to: str = "results") -> Path:
    """Run the stages that make numbers; return the folder."""
    config = compose([*STUDY, *overrides])
    folder = Path(to)
    plan(config, folder)
    generate(folder)
    fit(folder)
    return folder


def prints(folder: Path) -> dict[str, str]:
    """Return the hash of every file of samples, fits and traces."""
    files = [path for part in ("samples", "fits", "traces") for path in (folder / part).iterdir()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be kept here")
def test_the_disk_keeps_room_for_samples_before_they_are_drawn(workspace, monkeypatch):
    """What is mapped and finds no room kills the process without a word."""
    config = compose([*STUDY, "mixture=[notebook]", "sample_sizes=[1000]"])
    plan(config, folder := Path("results"))
    room = []

    def fill(values, *_):
        (file,) = (folder / "samples").iterdir()
        room.append(512 * file.stat().st_blocks - values.nbytes)
        return 0

    monkeypatch.setattr("pipeline.stages.generate._fill", fill)
    generate(folder)
    assert room and min(room) >= 0


def test_tables_have_their_columns_and_one_row_per_fit(workspace):
    run_stages(compose([*STUDY, "starts=2"]), folder := Path("results/convergence"))
    fits, traces = read_fits(folder), read_traces(folder)
    assert list(fits.columns) == FITS_COLUMNS
    assert list(traces.columns) == TRACES_COLUMNS
    assert len(fits) == 2 * 21 * 2
    assert not fits.duplicated(["cell", "replicate", "start"]).any()
    assert fits["fit_id"].is_unique
    assert fits["sample_size"].dtype == np.int64
    two = fits["mixture"] == "notebook"
    assert fits.loc[two, "mean_2"].isna().all()
    always = ["outcome", "n_iter", "log_likelihood", "log_likelihood_truth", "mean_0", "scale_1"]
    assert fits[always].notna().all().all()
    assert fits.loc[~two, ["weight_2", "mean_2", "scale_2"]].notna().all().all()
    assert fits["observed"].isna().all()
    schemas = {pq.read_schema(path).remove_metadata() for path in (folder / "fits").iterdir()}
    assert len(schemas) == 1
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "plan.yaml",
        "samples",
        "fits",
        "traces",
        "convergence.parquet",
        "convergence.csv",
        "convergence.md",
        "convergence.tex",
        "comparisons.parquet",
        "derived.parquet",
        "slopes.parquet",
        "claims.parquet",
        "profiles.parquet",
        "trajectories.parquet",
        "replay.parquet",
        "metrics.json",
        "figures",
        "report.html",
        "timings.parquet",
    }


def test_the_last_trace_row_is_the_fit(workspace):
    folder = numbers("starts=2")
    fits, traces = read_fits(folder), read_traces(folder)
    keys = ["cell", "replicate", "start"]
    parameters = [name for name in FITS_COLUMNS if name.startswith(("weight", "mean", "scale"))]
    last = traces.groupby(keys, sort=False).tail(1).reset_index(drop=True)
    for name in ("map_evaluations", "log_likelihood", *parameters):
        pd.testing.assert_series_equal(last[name], fits[name])
    assert (last["iteration"] == fits["n_iter"]).all()
    first = traces.groupby(keys, sort=False).head(1).reset_index(drop=True)
    assert (first["iteration"] == 0).all()
    assert (first["log_likelihood"] == fits["log_likelihood_start"]).all()


def test_relabelled_says_whether_matching_permuted_the_components(workspace):
    """Quantiles start in ascending order: where row 0 has another one, the fit was relabelled."""
    trimodal = "mixture=[notebook,marron_wand_02_skewed_unimodal,marron_wand_09_trimodal]"
    models = ("model=[free]", "+model.five={n_components: 5}", "+model.one={n_components: 1}")
    folder = numbers(trimodal, "init=[quantiles]", *models, "sample_sizes=[60]")
    aggregate(folder)
    fits, traces = read_fits(folder), read_traces(folder)
    same_size = fits["model"] == "free"
    assert fits.loc[~same_size, "relabelled"].isna().all() and (~same_size).sum() == 2 * 3 * 21
    assert fits.loc[same_size, "relabelled"].notna().all()
    starts = traces[traces["iteration"] == 0].set_index(["cell", "replicate"])
    seen = {}
    for row in fits[same_size].to_dict("records"):
        start = starts.loc[(row["cell"], row["replicate"])].filter(regex="mean_").dropna()
        assert row["relabelled"] == (not start.is_monotonic_increasing)
        seen.setdefault(row["mixture"], []).append(row["relabelled"])
    assert {True, False} <= {value for values in seen.values() for value in values}
    table = pd.read_parquet(folder / "convergence.parquet")
    counts = table[table["model"] == "free"].set_index("mixture")["n_relabelled"]
    assert counts.to_dict() == {name: sum(values) for name, values in seen.items()}
    assert (table.loc[table["model"] != "free", "n_relabelled"] == 0).all()
    # Of the components as they are: no matching is forced on other numbers of them.
    assert table.loc[table["model"] != "free"].filter(regex="^bias").isna().all(axis=None)


def test_the_notebook_by_its_own_formulas(workspace):
    """Recompute every row of a trace from the sample as the notebook does, with equal weights."""
    main(["experiment=notebook", "replicates=6", *QUICK])
    folder = Path("results/notebook")
    samples = np.load(folder / "samples/notebook-n40.npy")
    assert samples.shape == (6, 40)
    traces = read_traces(folder)
    for replicate, trace in traces.groupby("replicate"):
        x = samples[replicate]
        mean = trace[["mean_0", "mean_1"]].to_numpy()
        scale = trace[["scale_0", "scale_1"]].to_numpy()
        assert (trace[["weight_0", "weight_1"]] == 0.5).all().all()
        m, s = mean[0].copy(), scale[0].copy()
        for t in range(len(trace)):
            np.testing.assert_allclose(mean[t], m, rtol=0, atol=1e-12 * s.min())
            np.testing.assert_allclose(scale[t], s, rtol=1e-12)
            # Logarithms, since a collapsing component's density underflows on far points.
            density = norm.logpdf(x[:, None], m, s)
            total = logsumexp(density, axis=1, keepdims=True)
            expected = (total - math.log(2)).sum()
            np.testing.assert_allclose(trace["log_likelihood"].iloc[t], expected, rtol=1e-12)
            r = np.exp(density - total)
            m = (r * x[:, None]).sum(axis=0) / r.sum(axis=0)
            s = np.sqrt((r * (x[:, None] - m) ** 2).sum(axis=0) / r.sum(axis=0))
    proportions = (np.arange(40) < 20).astype(float)
    # The first 20 points are N(0, 2^2), the other 20 N(2, 1): bounds of 5 standard errors.
    component = samples[:, proportions == 1], samples[:, proportions == 0]
    for points, (mean, scale) in zip(component, ((0, 2), (2, 1)), strict=True):
        assert abs(points.mean() - mean) < 5 * scale / math.sqrt(points.size)
        assert abs(points.std() - scale) < 5 * scale / math.sqrt(2 * points.size)


def test_the_log_likelihood_of_the_truth(workspace):
    folder = numbers("mixture=[marron_wand_09_trimodal]")
    mixture = compose([*STUDY])["mixture"]["marron_wand_09_trimodal"]
    samples = np.load(folder / "samples/marron_wand_09_trimodal-n30.npy")
    density = sum(
        weight * norm.pdf(samples, mean, scale)
        for weight, mean, scale in zip(
            mixture["weights"], mixture["means"], mixture["scales"], strict=True
        )
    )
    found = read_fits(folder)["log_likelihood_truth"].to_numpy()
    np.testing.assert_allclose(found, np.log(density).sum(axis=1), rtol=1e-12)


def test_same_bytes_whatever_the_threads_blocks_and_interruptions(workspace, monkeypatch):
    plain = prints(numbers(to="plain"))
    assert prints(numbers("executor.workers=1", "store_dir=.one", to="one")) == plain

    monkeypatch.setattr(blocks, "MOST_VALUES", 30 * 4)
    assert prints(numbers("store_dir=.small", to="small")) == plain
    assert len(list(Path(".small").rglob("*.arrow"))) > 10
    monkeypatch.undo()
    monkeypatch.chdir(workspace)

    for kept, path in enumerate(sorted(Path(".cells").rglob("*.arrow"))):
        if kept:
            path.unlink()
    assert prints(numbers(to="resumed")) == plain


def test_samples_have_the_same_bytes_whatever_the_threads_and_pieces(workspace, monkeypatch):
    def hashes(*overrides: str) -> list[str]:
        plan(compose([*STUDY, "sample_sizes=[3,30]", *overrides]), Path("results"))
        generate(Path("results"))
        files = sorted(Path("results/samples").iterdir())
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]

    whole = hashes("executor.workers=1")
    assert len(whole) == 4
    for values in (1, 7, 45):
        monkeypatch.setattr("pipeline.samples.VALUES", values)
        assert hashes("executor.workers=3") == whole


def test_growing_a_study_changes_no_number_and_computes_only_the_difference(workspace, caplog):
    before = read_fits(numbers())
    traces = read_traces(Path("results"))
    caplog.set_level(logging.INFO)
    grown = ("replicates=25", "starts=2", "sample_sizes=[20,30]", "init=[quantiles,random_points]")
    folder = numbers(*grown)
    assert "2 new" not in caplog.text
    after = read_fits(folder)
    assert len(after) == 2 * 2 * (25 + 25 * 2)
    common = after[after["fit_id"].isin(before["fit_id"])]
    pd.testing.assert_frame_equal(
        common.sort_values("fit_id", ignore_index=True),
        before.sort_values("fit_id", ignore_index=True),
    )
    keys = ["cell", "replicate", "start", "iteration"]
    merged = traces.merge(read_traces(folder), on=keys, how="left", validate="one_to_one")
    assert (merged["log_likelihood_x"] == merged["log_likelihood_y"]).all()
    stored = {path.name for path in Path(".cells").rglob("*.arrow")}
    # The old block is there still; the new ones are the added replicates and starts alone.
    assert {"r0-21-s0-1", "r21-25-s0-1", "r0-25-s1-2"} <= {name.split(".")[0] for name in stored}
    # Grown or made at once: the same bytes.
    assert prints(folder) == prints(numbers(*grown, "store_dir=.fresh", to="fresh"))
    caplog.clear()
    numbers(*grown)
    assert "8 reused, 0 new (0 fits to run)" in caplog.text


def test_files_of_an_earlier_plan_are_removed(workspace):
    folder = numbers("sample_sizes=[20,30]")
    numbers("sample_sizes=[20]")
    assert len(prints(folder)) == 2 * 3
    assert set(read_fits(folder)["sample_size"]) == {20}


def test_samples_follow_the_truth_and_inits_share_them(workspace):
    folder = numbers("mixture=[overlap_low]", "replicates=400", "init=[random_points,quantiles]")
    samples = np.load(folder / "samples/overlap_low-n30.npy")
    # .5 N(-2, 1) + .5 N(2, 1): mean 0 and variance 5; bounds of 5 standard errors.
    n = samples.size
    assert abs(samples.mean()) < 5 * math.sqrt(5 / n)
    fourth = 0.5 * 2 * (16 + 6 * 4 + 3)
    assert abs(samples.var() - 5) < 5 * math.sqrt((fourth - 25) / n)
    truths = read_fits(folder).pivot(index="replicate", columns="init")["log_likelihood_truth"]
    assert (truths["random_points"] == truths["quantiles"]).all()


def test_record_keeps_what_it_says(workspace):
    folder = numbers("schedule.record=[2,5]", "schedule.record_replicates=3")
    for (_, replicate), trace in read_traces(folder).groupby(["cell", "replicate"]):
        last = trace["iteration"].max()
        wanted = {0, last} | ({t for t in (2, 5) if t <= last} if replicate < 3 else set())
        assert set(trace["iteration"]) == wanted


def test_observed_data(workspace):
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(0, 1, 60), rng.normal(5, 1, 40)])
    pd.DataFrame({"x": values}).to_csv("my.csv", index=False)
    run_stages(
        compose(
            [
                "experiment=convergence",
                "mixture=[]",
                "+observed.mine={path: my.csv, column: x}",
                "model.free.n_components=2",
                "init=[kmeans_pp]",
                "starts=4",
                *QUICK,
            ]
        ),
        folder := Path("results/mine"),
    )
    fits = read_fits(folder)
    assert (len(fits), set(fits["observed"]), set(fits["sample_size"])) == (4, {"mine"}, {100})
    assert fits["mixture"].isna().all() and fits["log_likelihood_truth"].isna().all()
    assert (fits["mean_0"] < fits["mean_1"]).all()
    np.testing.assert_allclose(fits[["mean_0", "mean_1"]].mean(), [0, 5], atol=0.8)
    # Data that change between the plan and the fit are told, not fitted under the old identity.
    shutil.rmtree(".cells")
    pd.DataFrame({"x": values + 1}).to_csv("my.csv", index=False)
    assert exit_status(lambda: fit(folder)) == 2


def test_an_unexpected_failure_is_a_row_and_spares_the_others(workspace, monkeypatch, caplog):
    whole = read_fits(numbers("mixture=[notebook]", to="whole"))
    real = blocks.fit

    def fails_on_replicate_4(points, *arguments):
        sample = np.load("whole/samples/notebook-n30.npy")[4]
        if any((row == sample).all() for row in points):
            raise RuntimeError("planted")
        return real(points, *arguments)

    monkeypatch.setattr(blocks, "fit", fails_on_replicate_4)
    found = read_fits(numbers("mixture=[notebook]", "store_dir=.other", to="found"))
    assert "planted" in caplog.text
    bad = found["replicate"] == 4
    assert list(found.loc[bad, "outcome"]) == ["error"]
    assert found.loc[bad, "relabelled"].isna().all() and found.loc[~bad, "relabelled"].notna().all()
    assert found.loc[bad, ["log_likelihood", "mean_0"]].isna().all().all()
    pd.testing.assert_frame_equal(found[~bad], whole[~bad], check_dtype=False)


def test_a_stage_refuses_what_was_made_for_another_plan(workspace, capsys):
    """Old samples under a new plan would poison the store, and old fits would be shown as new."""
    config = compose([*STUDY, "mixture=[notebook]"])
    run_stages(config, folder := Path("results"))
    fits = prints(folder)
    plan(config | {"seed": 9}, folder)
    for stage, needed in ((fit, "generate"), (aggregate, "fit"), (report, "fit"), (track, "fit")):
        if stage is track:
            plan(config | {"seed": 9, "tracking": TRACKED}, folder)
        assert exit_status(lambda stage=stage: stage(folder)) == 2
        assert f"run the stage {needed} again" in capsys.readouterr().err
    assert prints(folder) == fits
    generate(folder)
    fit(folder)
    assert exit_status(lambda: report(folder)) == 2
    assert "run the stage aggregate again" in capsys.readouterr().err
    assert not Path("mlflow.db").exists()
    clean = numbers("mixture=[notebook]", "seed=9", "store_dir=.clean", to="clean")
    assert prints(folder) == prints(clean)


@pytest.mark.parametrize("allocation", ["multinomial", "proportional"])
@pytest.mark.parametrize("place", [(3, 17), (1, 5999)])
def test_one_wrong_number_of_a_sample_is_refused(workspace, monkeypatch, allocation, place):
    settings = ("mixture=[notebook]", f"mixture.notebook.allocation={allocation}")
    monkeypatch.setattr("pipeline.samples.VALUES", 9000)
    numbers(*settings, "sample_sizes=[6000]", "replicates=5", "schedule.max_iter=1")
    shutil.rmtree(".cells")
    fit(Path("results"))
    path = Path("results/samples/notebook-n6000.npy")
    samples = np.load(path)
    samples[place] = np.nextafter(samples[place], np.inf)
    np.save(path, samples)
    shutil.rmtree(".cells")
    assert exit_status(lambda: fit(Path("results"))) == 2
    assert not list(Path(".cells").rglob("*.arrow"))


@pytest.mark.parametrize("kind", [OSError, EOFError, UnpicklingError, MemoryError])
def test_a_failure_of_the_machine_is_no_outcome(workspace, monkeypatch, kind):
    before = active_count()

    def fails(*arguments):
        raise kind("planted")

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "fit", fails)
        with pytest.raises(kind, match="planted"):
            numbers()
        deadline = time.monotonic() + 60
        while active_count() > before and time.monotonic() < deadline:  # blocks in hand
            time.sleep(0.01)
    assert not list(Path(".cells").rglob("*.arrow"))


@pytest.mark.parametrize("damage", [b"", b"z", None])
def test_samples_that_cannot_be_read_are_told(workspace, capsys, damage):
    folder = numbers("mixture=[notebook]")
    shutil.rmtree(".cells")
    path = folder / "samples/notebook-n30.npy"
    whole = path.read_bytes()
    path.unlink() if damage is None else path.write_bytes(damage and whole[:10] + b"z" + whole[11:])
    assert exit_status(lambda: fit(folder)) == 2
    assert f"run the stage generate {'first' if damage is None else 'again'}" in (
        capsys.readouterr().err
    )


def test_a_part_that_cannot_be_written_ends_the_run_at_once(workspace, monkeypatch):
    """Nor does an interruption wait for the parts of other cells."""
    numbers("executor.workers=2")
    waiting, go_on = Event(), Event()

    def assembled(folder, *arguments):
        if waiting.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        waiting.set()
        assert go_on.wait(60)
        yield from ()

    monkeypatch.setattr("pipeline.stages.fit.assembled", assembled)
    began = time.monotonic()
    assert exit_status(lambda: fit(Path("results"))) == 1
    assert time.monotonic() - began < 30
    go_on.set()


def test_nothing_recorded_but_the_ends(workspace):
    folder = numbers("schedule.record=[]", "mixture=[notebook]")
    traces = read_traces(folder)
    assert (traces.groupby("replicate").size() <= 2).all()


@pytest.mark.parametrize("replay", ["[]", "[{rule: map_residual, tolerances: [1e-2]}]"])
@pytest.mark.parametrize("part", ["fits", "traces"])
def test_a_part_with_damaged_pages_is_told(workspace, part, replay):
    folder = numbers("mixture=[notebook]", "schedule.record=all", f"replay={replay}")
    (path,) = (folder / part).iterdir()
    whole = path.read_bytes()
    # Before the footer, whose length stands before the last four bytes.
    stop = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    path.write_bytes(whole[:4] + b"\xff" * (stop - 4) + whole[stop:])
    with pytest.raises(InputError, match=rf"{part}.*: cannot be read; run the stage fit again"):
        aggregate(folder)


@pytest.mark.parametrize("damage", ["", "experiment: [", "cells: 3", "just text"])
def test_a_damaged_plan_is_told(workspace, capsys, damage):
    folder = numbers("mixture=[notebook]")
    (folder / "plan.yaml").write_text(damage)
    (folder / "timings.parquet").write_text("damaged")
    assert exit_status(lambda: fit(folder)) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_stage_without_its_input_says_which_to_run(workspace, capsys):
    plan(compose([*STUDY]), Path("results"))
    assert exit_status(lambda: fit(Path("results"))) == 2
    assert "generate" in capsys.readouterr().err


def test_the_command_line(command, workspace):
    done = command("pipeline", *STUDY)
    assert done.returncode == 0
    assert "results/convergence/report.html" in done.stdout
    assert "Traceback" not in done.stderr
    bad = command("pipeline", "seed=abc")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: seed")


def test_multirun_keeps_jobs_apart(command, workspace):
    settings = [option for option in STUDY if not option.startswith(("mixture", "init"))]
    done = command("pipeline", "-m", *settings, "seed=1,2", "mixture=notebook,overlap_low")
    assert done.returncode == 0, done.stderr
    folders = [path.parent for path in Path("results/multirun").glob("*/*/convergence.parquet")]
    assert len(folders) == 4
    sweep = pd.read_parquet("results/multirun/convergence.parquet")
    assert set(zip(sweep["override/seed"], sweep["override/mixture"], strict=True)) == {
        (seed, mixture) for seed in "12" for mixture in ("notebook", "overlap_low")
    }
    for folder in folders:
        job = sweep[sweep["job"] == folder.relative_to("results/multirun").as_posix()]
        rows = read_statistics(folder, read_plan(folder))
        assert (job["mixture"] == job["override/mixture"]).all()
        pd.testing.assert_frame_equal(
            job[rows.columns].reset_index(drop=True), rows, check_dtype=False
        )
    text = Path("results/multirun/convergence.csv").read_text()
    assert text.count("\n") == 1 + len(sweep)
    assert {folder.name for folder in folders} == {"convergence"}
    likelihoods = {read_fits(folder)["log_likelihood"].sum() for folder in folders}
    assert len(likelihoods) == 4


def test_a_job_that_fails_leaves_the_others_their_table(command, workspace):
    """Job by job: no server answers (status 3), and one job's results cannot be written (1)."""
    settings = ["experiment=notebook", "results_dir=here", "report=minimal"]
    nowhere = ["tracking=server", "tracking.uri=http://127.0.0.1:9"]
    done = command("pipeline", "-m", *settings, *nowhere, "seed=1,2")
    assert done.returncode == 3
    assert done.stderr.count("error: tracking.uri") == 2
    assert "2 of 2 jobs failed" in done.stderr and "Traceback" not in done.stderr
    Path("here/multirun").mkdir(exist_ok=True)
    Path("here/multirun/experiment=notebook,report=minimal,seed=4,tracking=none").touch()
    done = command("pipeline", "-m", *settings, "tracking=none", "seed=3,4,5")
    assert done.returncode == 1
    assert "1 of 3 jobs failed" in done.stderr and "Traceback" not in done.stderr
    sweep = pd.read_parquet("here/multirun/convergence.parquet")
    # Without a server the files of the first two were complete all the same.
    assert sorted(sweep["override/seed"]) == ["1", "2", "3", "5"]


def test_collecting_leaves_out_what_it_cannot_read(command, workspace, caplog):
    # A glob stands for the options that it matches.
    done = command("pipeline", "-m", "experiment=glob(noteb*)", *QUICK, "seed=1,2,3")
    assert done.returncode == 0, done.stderr
    first, second, third = sorted(Path("results/multirun").glob("*/*/convergence.parquet"))
    first.write_bytes(first.read_bytes()[:100])
    (second.parent / "plan.yaml").write_bytes(b"\xff not text")
    collect(Path("results"))
    assert f"{first}: cannot be read" in caplog.text
    assert f"{second.parent / 'plan.yaml'}: damaged" in caplog.text
    sweep = pd.read_parquet("results/multirun/convergence.parquet")
    assert set(sweep["job"]) == {third.parent.relative_to("results/multirun").as_posix()}


def test_collecting_nothing_is_told(command, workspace):
    for arguments, text in (([], "no finished job"), (["folder"], "argument: got 'folder'")):
        done = command("pipeline.collect", *arguments)
        assert done.returncode == 2 and text in done.stderr


def test_a_sweep_over_nothing_is_refused(workspace, capsys):
    assert exit_status(lambda: main(["-m", "experiment=glob(nosuch*)"])) == 2
    assert "got experiment=glob(nosuch*); allowed: " in capsys.readouterr().err


def test_samples_that_the_disk_cannot_hold_are_refused(workspace, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_200_000))
    with pytest.raises(InputError, match=r"need 32.0 MB; allowed: the 1.2 MB that are free in "):
        plan(compose(["sample_sizes=[40000]", "replicates=100"]), workspace / "results")
    assert list(workspace.iterdir()) == []


def test_multirun_refuses_a_bad_job_before_the_first(command, workspace):
    done = command("pipeline", "-m", "seed=1,-1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: seed: got -1")
    assert list(workspace.iterdir()) == []


def test_job_folders_differ_and_are_safe_names():
    names = ["seed=1", "seed=2", "mixture=[a,b]", "mixture=[a;b]", "+m={a: /x}", "x" * 200, ""]
    paths = [job_folder("results", "e", name) for name in names]
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path.parts[:2] == ("results", "multirun") and path.name == "e"
        assert len(path.parts) == 4
        assert len(path.parts[2]) < 100


LARGE = ("sample_sizes=[30000,inf]", "mixture=[notebook]", "init=[random_points,quantiles]")


def test_populations_and_large_samples(workspace):
    folder = numbers(*LARGE, "replicates=2", "starts=2", "schedule.max_iter=2000")
    assert [path.name for path in (folder / "samples").iterdir()] == ["notebook-n30000.npy"]
    fits = read_fits(folder)
    of_population = fits["sample_size"] == np.inf
    assert of_population.sum() == 3, "two random starts and the quantiles, of one replicate"
    assert (~of_population).sum() == 6
    assert fits["sample_size"].dtype == np.float64
    assert (fits["outcome"] == "converged").all()
    assert (fits["compression_error_bound"] > 0).all()
    assert (fits["compression_error_bound"] <= 1e-10).all()
    assert (fits["map_residual"] <= 1e-8).all()
    # The population's maximum is the truth, and its log-likelihood minus the entropy.
    population = fits[of_population]
    np.testing.assert_allclose(population["mean_1"], 2.0, atol=1e-4)
    np.testing.assert_allclose(
        population["log_likelihood"], population["log_likelihood_truth"], atol=1e-12
    )
    aggregate(folder)
    table = pd.read_parquet(folder / "convergence.parquet").set_index("sample_size")
    mean = table.loc[np.inf, "mean_log_likelihood"]
    np.testing.assert_allclose(mean, table.loc[np.inf, "log_likelihood_mean"], rtol=1e-15)
    assert table.loc[np.inf, "rmse_mean_1_mcse"].isna().all()


def test_compression_none_fits_the_points(workspace):
    settings = ("sample_sizes=[30000]", "mixture=[notebook]", "replicates=2")
    points = read_fits(numbers(*settings, "compression=none", to="none"))
    nodes = read_fits(numbers(*settings, to="auto"))
    assert (points["compression_error_bound"] == 0).all()
    assert (nodes["compression_error_bound"] > 0).all()
    assert (points["n_iter"] == nodes["n_iter"]).all()
    for name in ("mean_0", "scale_1", "weight_0"):
        np.testing.assert_allclose(nodes[name], points[name], atol=1e-9)
    np.testing.assert_allclose(nodes["log_likelihood"], points["log_likelihood"], rtol=1e-13)


def test_large_samples_give_the_same_bytes_on_any_number_of_threads(workspace, monkeypatch):
    monkeypatch.setattr("pipeline.core.compression.CHUNK", 9_000)
    monkeypatch.setattr("pipeline.core.evaluation.CHUNK", 9_000)
    settings = (*LARGE, "replicates=1", "init=[random_points]")
    found = [
        prints(
            numbers(
                *settings, f"executor.workers={workers}", f"store_dir=s{workers}", to=f"r{workers}"
            )
        )
        for workers in (1, 8)
    ]
    assert found[0] == found[1]
