"""The notebook's picture as an animation: every recorded iteration of one fit, as a GIF."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image
from scipy.spatial import cKDTree

from pipeline.plan import Cell
from pipeline.plots.group import Group
from pipeline.plots.snapshots import pictures, subject_of
from pipeline.plots.thinning import MOST_STEPS, thinned

MOST_FRAMES = 60
# In milliseconds; a GIF counts in hundredths of a second.
LONGEST_FRAME, SHORTEST_FRAME, WHOLE, LAST_HELD = 500, 100, 8000, 3000
# A GIF has 256 colours: as many of them as are frequent are kept as they are (paper, lines), and
# the others stand for what is left (edges of lines, points).
FREQUENT = 64
SOUNDED = 6  # frames, at most, whose colours are counted


def frame_rows(trace: pd.DataFrame) -> list[tuple[pd.Series, bool]]:
    """Return the rows of a trace to show: all, or `MOST_FRAMES` of those that the player has.

    Parameters
    ----------
    trace
        One fit's rows, by iteration.

    Returns
    -------
    list of (row, stopped): the first and the last are always there; `stopped` is true of the last.
    """
    iterations = trace["iteration"].to_numpy()
    stepped = thinned(iterations, MOST_STEPS)
    places = stepped[thinned(iterations[stepped], MOST_FRAMES)]
    return [(trace.iloc[at], bool(at == len(trace) - 1)) for at in places]


def durations(n_frames: int) -> list[int]:
    """Return how long each frame stands, in milliseconds; the last one is held."""
    each = min(LONGEST_FRAME, max(SHORTEST_FRAME, WHOLE // n_frames // 10 * 10))
    return [each] * (n_frames - 1) + [LAST_HELD]


def _palette(frames: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Choose 256 colours for these frames, each (height, width, 3) uint8.

    Returns
    -------
    palette : uint8, shape (at most 256, 3)
    nearest : uint8, shape (64, 64, 64)
        The place in the palette of red, green and blue, each over 4.
    """
    pixels = np.concatenate([frame.reshape(-1, 3) for frame in frames])
    codes = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    codes, counts = np.unique(codes, return_counts=True)
    codes = codes[np.argsort(-counts, kind="stable")]
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)
    palette = colors[:FREQUENT]
    if len(colors) > FREQUENT:
        rest = Image.fromarray(colors[None, FREQUENT:])
        cut = rest.quantize(256 - FREQUENT, Image.Quantize.MEDIANCUT, kmeans=1).getpalette()
        palette = np.concatenate([palette, np.array(cut, np.uint8).reshape(-1, 3)])
    # A colour that occurs stands for its box, so that the frequent ones are met exactly.
    boxes = np.stack(np.meshgrid(*[np.arange(2, 256, 4)] * 3, indexing="ij"), axis=-1)
    boxes[tuple(colors[::-1].T >> 2)] = colors[::-1]
    return palette, cKDTree(palette).query(boxes)[1].astype(np.uint8)


def gif_bytes(group: Group, cell: Cell) -> bytes | None:
    """Animate a cell's representative fit over all its recorded iterations.

    Returns
    -------
    bytes or None
        A GIF that repeats, with one palette; None where fewer than two iterations were recorded.
    """
    rows = frame_rows(group.representative(cell))
    if len(rows) < 2:
        return None
    subject = subject_of(group, cell)
    frames = pictures(subject, rows, np.copy)
    palette, nearest = _palette(frames[:: -(-len(frames) // SOUNDED)])
    images = [Image.fromarray(nearest[tuple(np.moveaxis(frame >> 2, -1, 0))]) for frame in frames]
    for image in images:
        image.putpalette(palette.tobytes())
    buffer = BytesIO()
    images[0].save(
        buffer,
        format="gif",
        save_all=True,
        append_images=images[1:],
        duration=durations(len(images)),
        loop=0,
        optimize=False,
    )
    return buffer.getvalue()
