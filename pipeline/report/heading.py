"""The top of a page, and of its entry in the index: how a study differs from its base.

A study that overrides make of an experiment keeps that experiment's title and question.
"""

import re
from collections.abc import Sequence

# What is drawn and how it is called changes nothing that was measured.
NOT_MEASURED = {"title", "question", "figures", "report"}
FOLDER = re.compile(r"(?:^|(?<=[=\s:,\[{'\"]))/(?:[^/,'\"{}\[\]]*/)*")


def changes(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that change what was measured.

    A file is named without its folder, which is a place on one machine.
    """
    return [FOLDER.sub("", each) for each in overrides if _key(each) not in NOT_MEASURED]


def question_is_of_base(overrides: Sequence[str]) -> bool:
    """Tell whether a question was asked by the experiment that overrides have changed."""
    return bool(changes(overrides)) and "question" not in map(_key, overrides)


def _key(override: str) -> str:
    return re.split(r"[.=@]", override.lstrip("+~"))[0]
