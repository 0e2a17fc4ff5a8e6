"""The animation: its frames are the pictures, its durations, its palette, its bytes."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.plots import snapshot_pngs
from pipeline.plots.animation import LAST_HELD, MOST_FRAMES, durations, frame_rows, gif_bytes
from pipeline.plots.snapshots import pictures, snapshot_picture, subject_of
from pipeline.plots.style import png_bytes
from pipeline.plots.thinning import MOST_STEPS, thinned


def frames_of(content):
    """Every frame as Pillow reads it, (height, width, 3), with its duration."""
    image = Image.open(BytesIO(content))
    read = []
    for place in range(image.n_frames):
        image.seek(place)
        read.append((np.asarray(image.convert("RGB")), image.info["duration"]))
    return read


def trace_of(iterations):
    return pd.DataFrame({"iteration": iterations, "log_likelihood": -1.0})


def test_frames_are_the_recorded_iterations_and_the_last_is_held(notebook):
    cell = notebook.cells[0]
    content = gif_bytes(notebook, cell)
    frames = frames_of(content)
    trace = notebook.representative(cell)
    assert len(frames) == len(trace) == 10
    assert [duration for _, duration in frames] == [500] * 9 + [LAST_HELD]
    subject = subject_of(notebook, cell)
    whole = pictures(subject, frame_rows(trace), np.copy)
    for (frame, _), picture in zip(frames, whole, strict=True):
        off = np.abs(frame.astype(int) - picture).max(axis=2)
        # 256 colours: the paper is white exactly, no pixel is off by more than an eighth of the
        # range, and a picture by less than one level in 256.
        assert (off[(picture == 255).all(axis=2)] == 0).all()
        assert off.max() <= 32 and off.mean() < 1
    assert Image.open(BytesIO(content)).info["loop"] == 0
    assert gif_bytes(notebook, cell) == content
    assert len(content) < 1_500_000


def test_a_single_picture_says_what_it_is(study):
    for cell in study.cells[:2]:
        subject = subject_of(study, cell)
        figure = snapshot_picture(subject, study.representative(cell).iloc[0])
        title = figure.get_suptitle()
        for part in (f"n = {cell.sample_size}", f"init {cell.init}", cell.algorithm, cell.model):
            assert part in title
        assert title.startswith(study.title) and title.endswith("replicate 0, start 0")
        # The film has it too, above the panel: nothing else is drawn there.
        frame, _ = frames_of(gif_bytes(study, cell))[0]
        assert (frame[:45] < 128).any()


def test_a_fast_picture_is_the_slow_one(study):
    """Blitting onto a frame drawn once gives the pixels of a figure drawn anew."""
    cell = study.cells[0]
    row = study.representative(cell).iloc[-1]
    subject = subject_of(study, cell)
    first = study.representative(cell).iloc[-2]
    slow = Image.open(BytesIO(png_bytes(snapshot_picture(subject, row)))).convert("RGB")
    # The same row twice: nothing of the picture before may be left.
    *_, fast = pictures(subject, [(row, False), (row, False)], np.copy)
    np.testing.assert_array_equal(fast, np.asarray(slow))
    before, after = pictures(subject, [(first, False), (row, False)], np.copy)
    assert (before != after).any()


def test_snapshot_pngs_differ_where_the_iterations_do_and_repeat(study):
    cell = study.cells[0]
    once, again = snapshot_pngs(study, cell), snapshot_pngs(study, cell)
    assert once == again
    assert len({png for _, png in once}) == len(once) > 2
    sizes = {Image.open(BytesIO(png)).size for _, png in once}
    assert len(sizes) == 1


@pytest.mark.parametrize("recorded", [range(2), range(60), range(61), range(5000)])
def test_frames_are_thinned_geometrically(recorded):
    shown = [row["iteration"] for row, _ in frame_rows(trace_of(recorded))]
    assert len(shown) == min(len(recorded), MOST_FRAMES)
    assert shown[0] == 0 and shown[-1] == recorded[-1]
    steps = np.diff(shown)
    assert (steps > 0).all()
    assert [stopped for _, stopped in frame_rows(trace_of(recorded))][-2:] == [False, True]
    if len(recorded) == 5000:
        # 10 or so early iterations one by one, then a constant factor.
        assert (steps[:10] == 1).all()
        factors = np.array(shown[31:]) / np.array(shown[30:-1])
        assert np.ptp(np.log(factors)) < 0.08


def test_frames_of_a_thinned_trace_are_recorded_iterations():
    recorded = np.unique(np.round(1.05 ** np.arange(200))).astype(int)
    recorded = np.concatenate([[0], recorded])
    assert len(recorded) > MOST_FRAMES
    shown = [row["iteration"] for row, _ in frame_rows(trace_of(recorded))]
    assert len(shown) == MOST_FRAMES == len(set(shown))
    assert set(shown) <= set(recorded.tolist())


@pytest.mark.parametrize("recorded", [np.arange(150), np.arange(5000), np.arange(0, 90_000, 7)])
def test_every_frame_is_a_step_of_the_player(recorded):
    shown = {row["iteration"] for row, _ in frame_rows(trace_of(recorded))}
    assert len(shown) == MOST_FRAMES
    assert shown <= set(recorded[thinned(recorded, MOST_STEPS)].tolist())


def test_durations_are_what_a_gif_can_say():
    for n in range(2, MOST_FRAMES + 1):
        assert len(durations(n)) == n
        assert all(each % 10 == 0 and each >= 100 for each in durations(n))
        assert sum(durations(n)) <= 8000 + LAST_HELD


def test_a_fit_without_a_path_is_not_animated(study):
    cell = study.cells[0]
    first_rows = study.traces[study.traces["iteration"] == 0]
    assert gif_bytes(replace(study, traces=first_rows), cell) is None
    assert gif_bytes(replace(study, traces=first_rows.iloc[:0]), cell) is None
