"""What stands on a page of `mlops-db report`: its tables, the data of its charts, and its texts."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass
class Chart:
    """A chart: its kind, what it says to a screen reader, and its data sets as rows."""

    kind: str
    label: str
    data: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class Section:
    """The texts, tables and charts of a section. A row of a table has a text for each label."""

    text: str = ""
    rows: list[dict[str, str]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)


class Page(HTMLParser):
    """A page that was read."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.sections: dict[str, Section] = {"": Section()}
        self.attributes: list[tuple[str, str, str]] = []
        self.elements: list[str] = []
        self.policy = ""
        self._section = ""
        self._cell: str | None = None
        self._raw: str | None = None
        self.feed(html)
        self.close()

    def __getitem__(self, section: str) -> Section:
        return self.sections[section]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append(tag)
        self.attributes += [(tag, name, value) for name, value in given.items()]
        if tag == "section":
            self._section = given["id"]
            self.sections[self._section] = Section()
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        here = self.sections[self._section]
        if tag not in {"wbr", "bdi", "span", "code"}:
            self._add(" ")
        if tag == "tr":
            here.rows.append({})
        if tag in {"td", "th"}:
            self._cell = given.get("data-label")
        if "data-kind" in given:
            here.charts.append(Chart(given["data-kind"], given["aria-label"]))
        if tag in {"script", "style"}:
            self._raw = tag if "id" not in given else "kinds"

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._cell = None
        if tag in {"script", "style"}:
            self._raw = None
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        here = self.sections[self._section]
        if self._raw == "script" and here.charts and not here.charts[-1].data and data.startswith('{"data"'):
            content = json.loads(data)
            here.charts[-1].values = content["values"]
            here.charts[-1].data = {name: _rows(columns, content["names"]) for name, columns in content["data"].items()}
        if self._raw is not None:
            return
        self._add(data)

    def _add(self, text: str) -> None:
        here = self.sections[self._section]
        here.text += text
        if self._cell is not None:
            row = here.rows[-1]
            row[self._cell] = row.get(self._cell, "") + text

    def table(self, section: str) -> list[dict[str, str]]:
        """The rows of the section's tables, without their headings; spaces are joined."""
        return [{label: " ".join(text.split()) for label, text in row.items()} for row in self[section].rows if row]

    def charts(self, section: str, kind: str) -> list[Chart]:
        return [chart for chart in self[section].charts if chart.kind == kind]

    def text(self, section: str) -> str:
        return " ".join(self[section].text.split())


def _rows(columns: dict[str, list[Any]], names: dict[str, list[str]]) -> list[dict[str, Any]]:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [{name: names[name][value] if name in names else value for name, value in row.items()} for row in rows]
