"""Colours that are told apart, also with a colour-vision deficiency."""

from itertools import combinations

import numpy as np
import pytest

from pipeline.plots.style import MARKERS, OKABE_ITO, component_looks, series_colors

# Machado, Oliveira & Fernandes (2009), "A physiologically-based model for simulation of color
# vision deficiency", severity 1: linear RGB as it looks to a dichromat.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
# sRGB's primaries in XYZ, with its white at (0.95047, 1, 1.08883): IEC 61966-2-1.
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
# Four just noticeable differences of CIELAB, of 2.3 each (Mahy, Van Eycken & Oosterlinck 1994).
APART = 4 * 2.3


def linear(color):
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def cielab(rgb):
    x, y, z = (
        t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29
        for t in TO_XYZ @ rgb / [0.95047, 1.0, 1.08883]
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(first, second, sight):
    one, other = (cielab(np.clip(SIGHT[sight] @ linear(c), 0, 1)) for c in (first, second))
    return float(np.linalg.norm(one - other))


def test_the_measure_knows_what_is_known():
    np.testing.assert_allclose(cielab(linear("#ffffff")), [100, 0, 0], atol=0.01)
    np.testing.assert_allclose(cielab(linear("#ff0000")), [53.24, 80.09, 67.20], atol=0.02)
    # Red and green of one lightness, which a deuteranope mixes up, and no other does.
    assert distance("#b0552d", "#7a7028", "deuteranopia") < APART
    assert distance("#b0552d", "#7a7028", "normal") > 3 * APART
    # Greys are what they are.
    assert distance("#333333", "#999999", "deuteranopia") == pytest.approx(
        distance("#333333", "#999999", "normal"), rel=1e-3
    )


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("n_components", range(2, len(OKABE_ITO) + 1))
def test_colours_of_up_to_seven_components_are_told_apart(sight, n_components):
    looks = component_looks(n_components)
    assert {look["linestyle"] for look in looks} == {"solid"}
    for one, other in combinations(looks, 2):
        assert distance(one["color"], other["color"], sight) > APART


@pytest.mark.parametrize("n_components", [8, 9, 10, 16, 28])
def test_more_components_differ_in_colour_or_line_style(n_components):
    looks = component_looks(n_components)
    assert looks[:7] == component_looks(7)
    assert len({(look["color"], look["linestyle"]) for look in looks}) == n_components
    # A plain dashed line is the truth's.
    assert not {"--", "dashed"} & {str(look["linestyle"]) for look in looks}


def test_series_differ_in_colour_or_marker():
    names = [f"init {k}" for k in range(20)]
    colors = series_colors(names)
    looks = {(colors[name], MARKERS[k % len(MARKERS)]) for k, name in enumerate(names)}
    assert len(looks) == 20
