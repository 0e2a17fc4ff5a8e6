"""What a model may leave free, tie and fix: every combination that its own code distinguishes."""

import pytest

from pipeline.core.model import make_model

MODELS = {
    "free": (),
    "equal weights": ("equal",),
    "shared scale": ("free", "free", "shared"),
    "equal weights, shared scale": ("equal", "free", "shared"),
    "fixed scales": ("free", "free", 1.1),
    "means only": ("equal", "free", 0.9),
    "symmetric": ("equal", "symmetric", 1.0),
    "symmetric, free weights": ("free", "symmetric", [0.7, 1.4]),
    "symmetric, shared scale": ("free", "symmetric", "shared"),
}


def models(counts):
    """Give a test parameter for every model and number of components that it may have."""
    for name, arguments in MODELS.items():
        for n_components in counts:
            if "symmetric" not in name or n_components == 2:
                yield pytest.param(
                    make_model(n_components, *arguments), id=f"{name}-{n_components}"
                )
