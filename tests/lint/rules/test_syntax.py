"""Files that are not Python are found."""

from pathlib import Path

import pytest

from support.revision_files import SECOND, changed, file_findings, found

pytestmark = pytest.mark.one_postgresql


def test_a_file_that_is_not_python_is_found_and_the_others_are_still_read() -> None:
    lines = found(_0001_first="def upgrade(:\n", _0002_second=changed(("Why: ", "Why not: "), text=SECOND))

    assert lines[0].startswith("0001_first.py: syntax: line 1: ")
    assert any(line.startswith("0002_second.py: docstring: ") for line in lines)


@pytest.mark.parametrize("content", [b'"""M\xfcll."""\n', b"revision\0\n"], ids=["not UTF-8", "NUL"])
def test_a_file_that_is_not_text_is_found(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0001_first.py").write_bytes(content)

    assert "syntax" in {finding.rule for finding in file_findings(tmp_path)}
