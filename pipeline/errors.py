"""Errors that are the user's to mend: told in a line or two, without a traceback."""


class InputError(Exception):
    """Bad configuration or data: names the key, the value got and what is allowed (exit 2)."""


class TrackingError(Exception):
    """The tracking store could not be used; the result files are complete (exit 3)."""


class ClusterError(Exception):
    """The workers could not do their part; finished blocks are kept (exit 1)."""
