"""Tables for people in LaTeX."""

import re
import unicodedata
from collections.abc import Sequence

from pipeline.statistics.presentation import BRACKETS, MISSING, NOTE, Listing

ENGINE = "% pdflatex refuses {}: take XeLaTeX or LuaLaTeX, and a font that has them."
ESCAPED = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"{{{character}}}" for character in "[]*"},  # after a row's end: its options
    MISSING: "--",
    "—": "---",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
}
MATHEMATICS = {
    "\N{MINUS SIGN}": "-",
    "\N{INFINITY}": r"\infty",
    "±": r"\pm",
    "×": r"\times",
    "·": r"\cdot",
    "÷": r"\div",
    "√": r"\sqrt{\ }",
    "≤": r"\leq",
    "≥": r"\geq",
    "≠": r"\neq",
    "≈": r"\approx",
    "∝": r"\propto",
    "→": r"\to",
    "∈": r"\in",
    "∑": r"\sum",
    "∫": r"\int",
    "∂": r"\partial",
    "ℓ": r"\ell",
    "°": r"^{\circ}",
    "µ": r"\mu",
    "¼": r"\frac{1}{4}",
    "½": r"\frac{1}{2}",
    "¾": r"\frac{3}{4}",
}
GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (FINAL SIGMA|\w+)")
# The name of a letter's command, and what stands for the capital where that has none.
LETTER_COMMANDS = {
    **{name.upper(): (name, "") for name in "gamma delta theta xi pi sigma upsilon".split()},
    **{name.upper(): (name, "") for name in "phi psi omega".split()},
    "LAMDA": ("lambda", ""),
    "FINAL SIGMA": ("varsigma", ""),
    **{
        name.upper(): (name, capital)
        for name, capital in zip(
            "alpha beta epsilon zeta eta iota kappa mu nu rho tau chi".split(),
            "ABEZHIKMNPTX",
            strict=True,
        )
    },
}
# What LaTeX's default encoding of fonts has, besides letters with accents.
LETTERS = "ßæÆœŒøØłŁ¡¿£§"
ACCENTS = {
    "\N{COMBINING GRAVE ACCENT}": "`",
    "\N{COMBINING ACUTE ACCENT}": "'",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~",
    "\N{COMBINING MACRON}": "=",
    "\N{COMBINING BREVE}": "u",
    "\N{COMBINING DOT ABOVE}": ".",
    "\N{COMBINING DIAERESIS}": '"',
    "\N{COMBINING RING ABOVE}": "r",
    "\N{COMBINING DOUBLE ACUTE ACCENT}": "H",
    "\N{COMBINING CARON}": "v",
    "\N{COMBINING CEDILLA}": "c",
}


def latex(title: str, listings: Sequence[Listing]) -> str:
    r"""Return tables for ``\input`` into a LaTeX document, with booktabs' rules.

    They are long tables, which may go on over pages. Characters that pdflatex refuses are named in
    a comment on top.
    """
    body: list[str] = []
    title = " ".join(title.split())
    end = "" if title.endswith(("?", "!", ".")) else "."
    for listing in listings:
        n_values = len(listing.header) - listing.n_labels
        sentences = f"{listing.note} {BRACKETS}".strip()
        caption = f"{_in_latex(title)}{end} {_in_latex(listing.caption)}. {_in_latex(sentences)}"
        body += [
            "",
            rf"\begin{{longtable}}{{@{{}}{'l' * listing.n_labels}{'r' * n_values}@{{}}}}",
            rf"\caption{{{caption}}}\\",
            r"\toprule",
            _latex_row(listing.header),
            r"\midrule",
            r"\endfirsthead",
            r"\toprule",
            _latex_row(listing.header),
            r"\midrule",
            r"\endhead",
            r"\bottomrule",
            r"\endlastfoot",
            *(_latex_row(row) for row in listing.rows),
            r"\end{longtable}",
        ]
    head = [r"% In the preamble: \usepackage{booktabs, longtable}", f"% {NOTE}"]
    refused = {character for line in body for character in line if not character.isascii()}
    if refused := refused.difference(LETTERS):
        head.append(ENGINE.format(" ".join(sorted(refused))))
    return "\n".join(head + body) + "\n"


def _latex_row(row: Sequence[str]) -> str:
    return " & ".join(_in_latex(text) for text in row) + r" \\"


def _in_latex(text: str) -> str:
    """Write what LaTeX prints as this text; characters that it has no command for stay."""
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(map(_character, composed))


def _character(character: str) -> str:
    if character in ESCAPED:
        return ESCAPED[character]
    if character.isprintable() and character.isascii():
        return character
    if formula := _formula(character):
        return f"${formula}$"
    if unicodedata.category(character) in ("Cc", "Cf"):
        return ""
    letter, *marks = list(unicodedata.normalize("NFD", character))
    if letter.isascii() and len(marks) == 1 and marks[0] in ACCENTS:
        return rf"\{ACCENTS[marks[0]]}{{{letter}}}"
    return character


def _formula(character: str) -> str:
    """Return the command of mathematics for a character, if there is one."""
    if character in MATHEMATICS:
        return MATHEMATICS[character]
    match = GREEK.fullmatch(unicodedata.name(character, ""))
    if match and match[2] in LETTER_COMMANDS:
        name, capital = LETTER_COMMANDS[match[2]]
        if match[1] == "SMALL":
            return f"\\{name}"
        return rf"\mathrm{{{capital}}}" if capital else f"\\{name.title()}"
    kind, _, base = unicodedata.decomposition(character).partition(" ")
    if kind not in ("<super>", "<sub>") or " " in base:
        return ""
    plain = chr(int(base, 16))
    plain = plain if plain.isascii() and plain.isalnum() else MATHEMATICS.get(plain, "")
    return f"{'^' if kind == '<super>' else '_'}{{{plain}}}" if plain else ""
