"""How the core's functions become machine code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from pipeline.core import source_hash


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a module-level function with numba, cached on disk.

    No fast-math: the order of the arithmetic is the code's. Divisions follow IEEE 754 instead of
    raising, and the GIL is released for the whole call.
    """
    # numba discards a cached function when its own file changes, not when a function that it calls
    # in another file does. A cache folder per state of the core's sources closes that hole.
    config: Any = numba.config
    before = config.CACHE_DIR
    base = Path(before) if before else Path(__file__).parent / "__pycache__"
    config.CACHE_DIR = str(base / f"numba-{source_hash()[:16]}")
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before
