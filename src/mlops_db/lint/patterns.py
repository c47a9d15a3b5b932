"""Texts that match a regular expression, for rows that a CHECK asks for."""

from __future__ import annotations

import re
import string

_CLASSES = {"d": string.digits, "w": string.ascii_lowercase + string.digits + "_", "s": " "}
# Letters first: what looks like a name is taken where a number might not be.
_ANY = string.ascii_lowercase + string.digits
_ATOM = re.compile(
    r"""
    (?: \[ (?P<class> (?:[^\[\]\\^]|\\[dws\W]) (?:[^\[\]\\]|\\[dws\W])* ) \]
      | \\(?P<escaped>[dws\W])
      | (?P<dot>\.)
      | (?P<plain>[^\\^$.|?*+()\[\]{}])
    )
    (?: (?P<often>[*+?]) | \{(?P<least>\d+)(?P<comma>,)?(?P<most>\d+)?\} )?
    """,
    re.VERBOSE,
)
_MEMBER = re.compile(r"\\(?P<escaped>.)|(?P<first>[^\\])-(?P<last>[^\\\]])|(?P<single>.)")


def matching_text(pattern: str, number: int) -> str | None:
    """A text that matches, another one for another number where the pattern leaves that open.

    Understands a sequence of characters and classes with or without a quantifier, between anchors or not. Returns None
    for what has groups, alternatives, negated or named classes, or other escapes.
    """
    body = pattern.removeprefix("^").removesuffix("$")
    text, position = "", 0
    while position < len(body):
        atom = _ATOM.match(body, position)
        if atom is None:
            return None
        text += _repeated(_characters(atom), *_count(atom), number)
        position = atom.end()
    return text if re.search(pattern, text) else None


def _characters(atom: re.Match[str]) -> str:
    if atom["class"] is not None:
        return "".join(map(_members, _MEMBER.finditer(atom["class"])))
    if atom["escaped"] is not None:
        return _CLASSES.get(atom["escaped"], atom["escaped"])
    return _ANY if atom["dot"] else atom["plain"]


def _members(member: re.Match[str]) -> str:
    if member["first"] is not None:
        return "".join(map(chr, range(ord(member["first"]), ord(member["last"]) + 1)))
    return _CLASSES.get(member["escaped"], member["escaped"]) if member["escaped"] else member["single"]


def _count(atom: re.Match[str]) -> tuple[int, int | None]:
    """How often at least, and at most."""
    if atom["least"] is not None:
        least = int(atom["least"])
        return least, int(atom["most"]) if atom["most"] else None if atom["comma"] else least
    return {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(atom["often"] or "", (1, 1))


def _repeated(characters: str, least: int, most: int | None, number: int) -> str:
    """The number, written with these characters for digits."""
    if len(characters) == 1:
        return characters * least
    digits = ""
    while number or len(digits) < least:
        number, digit = divmod(number, len(characters))
        digits = characters[digit] + digits
    return digits if most is None else digits[-most:] if most else ""
