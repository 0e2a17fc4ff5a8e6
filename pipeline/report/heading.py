"""The top of a page, and of its entry in the index: how a study differs from its base.

A study that overrides make of an experiment keeps that experiment's title, and its question unless
it asks about other data or another model.
"""

import re
from collections.abc import Sequence

# What is drawn and how it is called changes nothing that was measured.
NOT_MEASURED = {"title", "question", "figures", "report"}
# What a question is about: with another one it is another question.
SUBJECT = {"mixture", "observed", "model"}
FOLDER = re.compile(r"(?:^|(?<=[=\s:,\[{'\"]))/(?:[^/,'\"{}\[\]]*/)*")


def changes(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that change what was measured.

    A file is named without its folder, which is a place on one machine.
    """
    return [FOLDER.sub("", each) for each in overrides if _key(each) not in NOT_MEASURED]


def question_of(question: str, overrides: Sequence[str]) -> tuple[str, bool]:
    """Return the question to show, and whether overrides have changed the experiment that asks it.

    Where they ask about other data or another model, and give no question, there is none.
    """
    keys = set(map(_key, overrides))
    if "question" in keys:
        return question, False
    return ("", False) if keys & SUBJECT else (question, bool(changes(overrides)))


def _key(override: str) -> str:
    return re.split(r"[.=@]", override.lstrip("+~"))[0]
