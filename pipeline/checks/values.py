"""Refusals, and what single values may be."""

import math
import re
from collections.abc import Iterable
from typing import Any

from pipeline.errors import InputError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]*")


def one_line(text: str) -> str:
    """Return a text without line breaks and repeated blanks."""
    return " ".join(text.split())


def refuse(key: str, value: Any, allowed: str) -> None:
    """Raise an InputError that names the key, the value got and what is allowed."""
    raise InputError(f"{key}: got {value!r}; allowed: {allowed}")


def integer(key: str, value: Any, least: int, most: int, also: str = "") -> None:
    """Refuse what is no integer from `least` to `most`."""
    if not isinstance(value, int) or not least <= value <= most:
        refuse(key, value, f"an integer from {least} to {most}{also}")


def choice(key: str, value: Any, choices: Iterable[str], also: str = "") -> None:
    """Refuse what is none of the choices."""
    if value not in tuple(choices):
        refuse(key, value, ", ".join(choices) + also)


def numbers(key: str, values: Any) -> None:
    """Refuse what is no finite number, or list of them."""
    for value in values if isinstance(values, list) else [values]:
        if not isinstance(value, int | float) or not math.isfinite(value):
            refuse(key, value, "finite numbers")


def between(key: str, value: Any, least: float, most: float) -> None:
    """Refuse what is no number from `least` to `most`."""
    if value is None or not least <= value <= most:
        refuse(key, value, f"a number from {least:g} to {most:g}")


def nonnegative(key: str, value: Any) -> None:
    """Refuse what is no finite number of at least zero."""
    if value is None or not (math.isfinite(value) and value >= 0):
        refuse(key, value, "a finite number, zero or more")


def distinct(key: str, values: list[Any]) -> None:
    """Refuse a list that has an entry twice."""
    if len(set(values)) != len(values):
        refuse(key, values, "every entry once")
