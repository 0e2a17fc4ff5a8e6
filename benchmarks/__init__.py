"""Benchmarks: each module measures something and writes its section of a page in `docs/`."""

import os

# One thread for each engine, and numpy with all that the CPU has: the pipeline forgoes its AVX-512,
# which would be unfair to the peers. Read by the libraries at their first import.
SETTINGS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": ""}
os.environ.update(SETTINGS)
