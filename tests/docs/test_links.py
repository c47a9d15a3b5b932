"""Links between the pages, and references from the code to their sections, lead to what exists."""

import re
from functools import cache
from pathlib import Path

import pytest

from support.database import ROOT

pytestmark = pytest.mark.one_postgresql

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/*.md")])
# Such as `docs/operating.md, "TLS"`; the end of a literal or of a comment's line may be in between.
SECTION = re.compile(r'docs/([\w-]+\.md),[\s"#]*\\?"([^"\\]+)\\?"')
REFERRING = [
    *ROOT.glob("src/**/*.py"),
    *ROOT.glob(".github/**/*.md"),
    *ROOT.glob(".github/**/*.yml"),
    ROOT / ".env.example",
]


@cache
def headings(page: Path) -> tuple[str, ...]:
    return tuple(re.findall(r"^#+ (.+)$", without_code(page), flags=re.MULTILINE))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that a forge gives the headings of a page: of two with one text the second ends in -1."""
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)]
    return {f"{slug}-{before}" if (before := slugs[:place].count(slug)) else slug for place, slug in enumerate(slugs)}


def without_code(page: Path) -> str:
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_an_anchor(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", without_code(page))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not re.match(r"[a-z]+:", link) and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)

    assert broken == []


def test_every_section_that_code_names_exists() -> None:
    named = {(source.name, *found) for source in REFERRING for found in SECTION.findall(source.read_text("utf-8"))}

    assert {page for _, page, _ in named} >= {"operating.md", "developing.md"}
    assert [each for each in sorted(named) if each[2] not in headings(ROOT / "docs" / each[1])] == []


def test_anchors_of_headings(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `page`\n## Rows, and more\n## Rows, and more\n```\n# code\n```\n", "utf-8")

    assert anchors(page) == {"a-page", "rows-and-more", "rows-and-more-1"}
