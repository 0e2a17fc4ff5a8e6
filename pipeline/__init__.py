"""em-convergence: how Expectation-Maximization converges on 1-D Gaussian mixtures."""

import os
import platform
import sys

# numpy's AVX-512 exp and log differ in the last bit from its other code paths; the files that the
# pipeline writes must not depend on the CPU. Read by numpy at its first import.
if platform.machine() in {"x86_64", "AMD64"}:
    os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "X86_V4")
# Arrow's own allocator returns memory that is asked for again at once: page faults, which took a
# second of a million fits. Read by pyarrow at its first import.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")

# So Python calls the program while it looks for the module of `python -m`. The imports of a command
# take a second, in which Ctrl-C would be answered by a traceback.
if sys.argv[:1] == ["-m"]:
    from pipeline.command import leave_when_interrupted

    leave_when_interrupted()
