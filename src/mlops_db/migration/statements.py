"""Reads the text of SQL as far as needed: the first words of each statement, and what is quoted or a comment."""

from __future__ import annotations

import re
from itertools import count, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Manual, "Lexical Structure". Block comments nest, so `_after_comment` finds their end.
_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* ) | (?P<block> /\* )
    | (?P<quoted> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
                | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$ )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<mark> [;()] )
    """,
    re.VERBOSE | re.DOTALL,
)
# A name as SQL has it, quoted or not; and one with its schema or without.
PART = r'(?:"(?:[^"]|"")+"|[\w$]+)'
NAME = rf"(?:{PART}\.)?{PART}"
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_FIRST_WORDS = 4
_ENDS = {("COMMIT",), ("END",), ("ABORT",), ("ROLLBACK",), ("PREPARE", "TRANSACTION")}
# Without block comments: what can have no words of a statement, and the words that are looked for. Mostly none is left,
# and no token need be read.
_NOT_WORDS = re.compile(
    r"""--[^\n]* | '(?:[^']|'')*' | "(?:[^"]|"")*" | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$""",
    re.VERBOSE | re.DOTALL,
)
_ENDING = re.compile(rf"(?<![^\W\d])(?:{'|'.join(words[0] for words in sorted(_ENDS))})\b", re.IGNORECASE)
_KEEPS = re.compile(r"ROLLBACK (?:WORK |TRANSACTION )?TO\b")
_MARKS = ("SAVEPOINT", "RELEASE", "ROLLBACK")


def ends_transaction(sql: str) -> str | None:
    """The words that end the transaction, such as `COMMIT`; None if no statement of `sql` does.

    A COMMIT in a function or a DO block is not found: in a transaction, PostgreSQL itself refuses it.
    """
    if not ("/*" in sql or "\\" in sql or _ENDING.search(_NOT_WORDS.sub(" ", sql))):
        return None
    for words in _statements(sql):
        for end in _ENDS:
            if words[: len(end)] == end and not _KEEPS.match(" ".join(words)):
                return " ".join(end)
    return None


def is_savepoint(sql: str) -> bool:
    """Whether it only sets, releases or rolls back to savepoints."""
    marks = [words[0] in _MARKS for words in _statements(sql)]
    return bool(marks) and all(marks)


def is_update(sql: str) -> bool:
    """Whether it is a single UPDATE; a WITH before it could hold a DELETE, so that does not count."""
    return [words[0] for words in _statements(sql)] == ["UPDATE"]


def first_words(sql: str) -> list[str]:
    """The first word of each statement, in capitals."""
    return [words[0] for words in _statements(sql)]


def stored_name(name: str) -> str:
    """A name as the catalogue has it: without quotes, or in lower case."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def literal(text: str) -> str:
    """The text as SQL has it; standard_conforming_strings is on."""
    return "'{}'".format(text.replace("'", "''"))


def dollar_quoted(text: str) -> str:
    """The text between dollars, with a tag that it does not contain."""
    tag = next(tag for tag in (f"$body{number or ''}$" for number in count()) if tag not in text)
    return f"{tag}{text}{tag}"


def sets_only(sql: str) -> bool:
    """Whether it only changes settings of the session."""
    return all(words[0] in ("SET", "RESET") for words in _statements(sql))


def without_texts(sql: str) -> str:
    """The SQL without its comments, and with empty literals and function bodies; quoted names stay."""
    kept, place = "", 0
    for match, end in _tokens(sql):
        if match["comment"] or match["block"]:
            kept += f"{sql[place : match.start()]} "
        elif match["quoted"] and not match[0].startswith('"'):
            kept += f"{sql[place : match.start()]}''"
        else:
            continue
        place = end
    return kept + sql[place:]


def mask_texts(sql: str) -> str:
    """The SQL, as long as it is, with blanks for comments and literals, and a name without quotes for a quoted one."""
    masked, place = "", 0
    for match, end in _tokens(sql):
        if match["comment"] or match["block"] or match["quoted"]:
            filler = "x" if match[0].startswith('"') else " "
            masked += sql[place : match.start()] + filler * (end - match.start())
            place = end
    return masked + sql[place:]


def has_text_on_several_lines(sql: str) -> bool:
    """Whether a literal or a quoted name of it spans lines."""
    return any(match["quoted"] and "\n" in match[0] for match, _ in _tokens(sql))


def split_statements(sql: str) -> Iterator[str]:
    """Each statement with the comments before it, and without the semicolon that ends it."""
    start = 0
    depth = 0  # of parentheses, as in CREATE RULE ... DO (...; ...), and of BEGIN ATOMIC ... END with its CASE ... END
    last = ""
    for part, end in _parts(sql):
        if part == ";" and depth == 0:
            if last not in ("", ";"):
                yield sql[start : end - 1].strip()
            start = end
        elif part == "(" or (last == "BEGIN" and part == "ATOMIC") or (depth and part == "CASE"):
            depth += 1
        elif part == ")" or (depth and part == "END"):
            depth = max(depth - 1, 0)
        last = part
    if last not in ("", ";"):
        yield sql[start:].strip()


def _statements(sql: str) -> Iterator[tuple[str, ...]]:
    """The first words of each statement, in capitals."""
    for statement in split_statements(sql):
        words = (part for part, _ in _parts(statement) if part not in ";()")
        if first := tuple(islice(words, _FIRST_WORDS)):
            yield first


def _parts(sql: str) -> Iterator[tuple[str, int]]:
    """Words in capitals, semicolons and parentheses, `'` for quoted text; and where each ends."""
    for match, end in _tokens(sql):
        if match["quoted"]:
            yield "'", end
        elif not (match["comment"] or match["block"]):
            yield match[0].upper(), end


def _tokens(sql: str) -> Iterator[tuple[re.Match[str], int]]:
    """Each token and where it ends; the match of a block comment covers only its beginning."""
    place = 0
    while match := _TOKEN.search(sql, place):
        place = _after_comment(sql, match.end()) if match["block"] else match.end()
        yield match, place


def _after_comment(sql: str, place: int) -> int:
    depth = 1
    while depth and (edge := _BLOCK_EDGE.search(sql, place)):
        depth += 1 if edge[0] == "/*" else -1
        place = edge.end()
    return place if depth == 0 else len(sql)
