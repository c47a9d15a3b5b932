"""Revisions as files: written to a folder, and judged by the rules that only read them."""

import tempfile
from pathlib import Path

from mlops_db.lint.rule import Finding
from mlops_db.lint.rules import FILE_RULES
from mlops_db.lint.run import check_files, read_project
from mlops_db.revisions.graph import read_graph
from support.projects import source

UP, DOWN = "op.execute('SELECT 1')", "op.execute('SELECT 2')"
FIRST = source("0001", None, UP, DOWN)
SECOND = source("0002", "0001", UP, DOWN)
READING_RULES = [rule for rule in FILE_RULES if rule.name != "loads"]  # which runs the files


def file_findings(folder: Path) -> list[Finding]:
    return list(check_files(read_project([folder], read_graph(folder)), READING_RULES))


def findings(files: dict[str, str]) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        return file_findings(Path(folder))


def found(**files: str) -> list[str]:
    """The findings as lines; a keyword is a file's name without `_` in front and `.py`."""
    return list(map(str, findings({f"{name[1:]}.py": text for name, text in files.items()})))


def changed(*pairs: tuple[str, str], text: str = FIRST) -> str:
    """The source of a revision with parts replaced; each has to be there."""
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def of_first(text: str) -> list[str]:
    return [line.removeprefix("0001_first.py: ") for line in found(_0001_first=text)]
