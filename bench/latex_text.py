"""Any words as LaTeX text that pdflatex sets in either font encoding, OT1 or T1, with no package but the kernel's."""

from __future__ import annotations

import re
import unicodedata

_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "[": "{[}",  # after a line's end LaTeX would take it for an argument
    "]": "{]}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    "`": "{`}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "ȷ": r"\j{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "©": r"\copyright{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
}
_MATH = {
    "±": "pm",
    "·": "cdot",
    "†": "dagger",
    "‡": "ddagger",
    "×": "times",
    "÷": "div",
    "µ": "mu",
    "√": "surd",
    "≤": "le",
    "≥": "ge",
    "≠": "ne",
    "≈": "approx",
    "∼": "sim",
    "∞": "infty",
    "∈": "in",
    "→": "rightarrow",
    "←": "leftarrow",
    "↔": "leftrightarrow",
    "↑": "uparrow",
    "↓": "downarrow",
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "varepsilon",
    "ζ": "zeta",
    "η": "eta",
    "θ": "theta",
    "ι": "iota",
    "κ": "kappa",
    "λ": "lambda",
    "μ": "mu",
    "ν": "nu",
    "ξ": "xi",
    "π": "pi",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "υ": "upsilon",
    "φ": "varphi",
    "χ": "chi",
    "ψ": "psi",
    "ω": "omega",
    "Γ": "Gamma",
    "Δ": "Delta",
    "Θ": "Theta",
    "Λ": "Lambda",
    "Ξ": "Xi",
    "Π": "Pi",
    "Σ": "Sigma",
    "Υ": "Upsilon",
    "Φ": "Phi",
    "Ψ": "Psi",
    "Ω": "Omega",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0323": "d",
    "\u0327": "c",
    "\u0331": "b",
}
_BELOW = "\u0323\u0327\u0331"


def escape(words: str) -> str:
    """Make any user's words safe; a character that cannot be set becomes a question mark."""
    plain = " ".join(words.split()).replace(" - ", " − ")  # between blanks a hyphen is a minus
    # Two hyphens in a name are two hyphens, not a dash.
    pairs = zip(plain, f"{plain[1:]} ", strict=False)
    return "".join("-{}" if each == following == "-" else _character(each) for each, following in pairs)


def signed(words: str) -> str:
    """Escape, and set the sign of a number as a sign."""
    is_number = re.compile(r"[+-][0-9.]+").fullmatch
    return " ".join(f"${word}$" if is_number(word) else escape(word) for word in words.split(" "))


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character in _MATH:
        return f"$\\{_MATH[character]}$"
    if character == "−":
        return "$-$"
    if character.isascii():
        return character if character.isprintable() else "?"
    decomposed = unicodedata.normalize("NFD", character)
    base, marks = decomposed[0], decomposed[1:]
    if len(marks) == 1 and marks[0] in _ACCENTS and base.isascii() and base.isalpha():
        letter = f"\\{base}" if base in "ij" and marks[0] not in _BELOW else base
        return f"\\{_ACCENTS[marks[0]]}{{{letter}}}"
    plain = unicodedata.normalize("NFKC", character)  # full-width forms, ligatures, non-breaking spaces
    if plain != character and plain.isascii() and plain.isprintable():
        return "".join(map(_character, plain))
    return "" if unicodedata.category(character) in ("Mn", "Cf") else "?"
