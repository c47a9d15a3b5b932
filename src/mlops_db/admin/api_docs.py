"""Writes docs/api.md from the docstrings and signatures of what jobs call. Griffe reads them from the source."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_db.errors import require_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

    from griffe import Module

MANAGER = "storage.db_manager.DatabaseManager"
# The other classes of the page. The parts of the manager, such as `db.models`, are its cached properties.
OTHERS = {
    "MappedMoment": "storage.mapped_moment.MappedMoment",
    "Settings": "settings.Settings",
}
ADAPTERS = ("evidently", "mlflow", "airflow")
WIDTH = 100


def markdown() -> str:
    """The whole of docs/api.md.

    Raises:
        MissingExtraError: Griffe is not installed.
    """
    missing = "docs/api.md is written with griffe, which is not installed"
    with require_extra("check", missing, otherwise=" (in a checkout: `uv sync`)"):
        import griffe  # noqa: PLC0415  (optional)
    logging.getLogger("griffe").setLevel(logging.ERROR)  # it warns about each argument without a description
    package: Any = griffe.load(
        "mlops_db",
        search_paths=[Path(__file__).parents[2]],
        docstring_parser=griffe.Parser.google,
        docstring_options={"returns_multiple_items": False, "returns_named_value": False},
        allow_inspection=False,
    )
    return "\n".join(_Page(package).lines())


class _Page:
    # Whether a member is a function or an attribute is known to its labels, not to its type: so they are Any.
    def __init__(self, package: Module) -> None:
        self.package: Any = package
        self.classes = {"db": MANAGER, **dict(self.parts()), **OTHERS}

    def parts(self) -> Iterator[tuple[str, str]]:
        """The name of each part of the manager, such as `db.models`, and its class."""
        for member in self.package[MANAGER].members.values():
            if "cached" in member.labels:
                yield f"db.{member.name}", member.annotation.canonical_path.removeprefix("mlops_db.")

    def lines(self) -> Iterator[str]:
        adapters = [self.package[f"adapters.{name}"] for name in ADAPTERS]
        yield "# The API\n"
        yield "What jobs call; [storing.md](storing.md) shows how. `mlops-db docs` writes this page out of the code.\n"
        for title in (*self.classes, "Errors", *(adapter.path for adapter in adapters)):
            yield f"- [{title}](#{title.lower().replace('.', '')})"
        yield ""
        for name, path in self.classes.items():
            cls = self.package[path]
            yield f"## {name}\n\nA `{cls.path}`.\n"
            yield from self.docstring(cls)
            if name == "db":
                yield from self.function(self.package["get_db_manager"], "get_db_manager")
                yield from self.function(cls["__init__"], cls.name)
            yield from self.members(cls, name)
            for record in self.records(cls).values():
                yield f"### {record.name}\n\nA `{record.path}`.\n"
                yield from self.docstring(record)
        yield "## Errors\n\nIn `mlops_db.errors`; `MlopsDbError` is in `mlops_db`, too.\n"
        yield from self.errors(list(self.package["errors"].classes.values()))
        for adapter in adapters:
            yield f"## {adapter.path}\n"
            yield from self.docstring(adapter)
            for function in adapter.functions.values():
                if function.is_public:
                    yield from self.function(function, function.name)
            for cls in (adapter[name] for name in adapter.exports or () if adapter[name].is_class):
                yield f"### {cls.name}\n"
                yield from self.docstring(cls)

    def members(self, cls: Any, prefix: str) -> Iterator[str]:
        for member in cls.members.values():
            name = f"{prefix}.{member.name}"
            if not member.is_public or member.is_special or name in self.classes:
                continue
            if member.is_function:
                yield from self.function(member, name)
            elif "property" in member.labels:
                yield f"### {name}\n\n```python\n{member.name}: {self.spelt(member.annotation)}\n```\n"
                yield from self.docstring(member)

    def function(self, function: Any, name: str) -> Iterator[str]:
        yield f"### {name}\n\n```python\n{self.signature(function, name.rpartition('.')[2])}\n```\n"
        yield from self.docstring(function)

    def signature(self, function: Any, name: str) -> str:
        parts: list[str] = []
        for parameter in function.parameters:
            if parameter.name in ("self", "cls"):
                continue
            if parameter.kind.name.startswith("var_"):
                stars = "*" if parameter.kind is parameter.kind.var_positional else "**"
                parts.append(f"{stars}{parameter.name}: {self.spelt(parameter.annotation)}")
                continue
            if parameter.kind is parameter.kind.keyword_only and "*" not in parts:
                parts.append("*")
            default = "" if parameter.default is None else f" = {self.spelt(parameter.default)}"
            parts.append(f"{parameter.name}: {self.spelt(parameter.annotation)}{default}")
        end = ")" if function.name == "__init__" else f") -> {self.spelt(function.returns)}"
        line = f"{name}({', '.join(parts)}{end}"
        return line if len(line) <= WIDTH else "\n    ".join((f"{name}(", *(f"{part}," for part in parts))) + f"\n{end}"

    def errors(self, errors: list[Any]) -> Iterator[str]:
        yield "| error | is a | retryable | when |\n|-|-|-|-|"
        for error in errors:
            retryable = str(error.all_members["retryable"].value)
            shown = {"True": "yes", "False": ""}.get(retryable, f"if {retryable}")
            when = _line(_sections(error)[0].value)
            yield f"| `{error.name}` | `{error.bases[0]}` | {shown} | {when} |"
        yield ""
        for error in errors:
            if len(_sections(error)) > 1:
                yield f"### {error.name}\n"
                yield from self.docstring(error)

    def docstring(self, item: Any) -> Iterator[str]:
        for section in _sections(item):
            kind = section.kind.value
            if kind == "text":
                yield f"{section.value}\n"
                continue
            yield f"{kind.capitalize()}:\n"
            for entry in section.value:
                yield f"- {self.subject(kind, entry, item)}{_line(entry.description)}"
            yield ""

    def subject(self, kind: str, entry: Any, item: Any) -> str:
        if kind == "returns":  # Griffe takes what is before a colon for the type
            return "" if entry.annotation is item.returns else f"{entry.annotation}: "
        if kind == "raises":
            return f"`{str(entry.annotation).strip('()')}`: "
        return f"`{entry.name}` (`{self.spelt(entry.annotation)}`): "

    def spelt(self, expression: Any) -> str:
        """A type or a default, with the aliases and constants of ours that it names spelt out."""
        named = self.ours(expression)
        if named is not None and named.is_attribute:
            return self.spelt(named.value)
        parts = [expression] if isinstance(expression, str | None) else list(expression.iterate(flat=False))
        return str(expression) if parts == [expression] else "".join(map(self.spelt, parts))

    def ours(self, expression: Any) -> Any:
        """The object of ours that an expression names; None if it names none."""
        path = getattr(expression, "canonical_path", "")
        try:
            return self.package[path.removeprefix("mlops_db.")] if path.startswith("mlops_db.") else None
        except KeyError:
            return None

    def records(self, cls: Any, found: dict[str, Any] | None = None) -> dict[str, Any]:
        """The records of the storage layer that a class's calls take and return, and the records in these."""
        found = {} if found is None else found
        for member in cls.members.values():
            taken = [parameter.annotation for parameter in member.parameters] if member.is_function else []
            annotations = [*taken, member.returns if member.is_function else member.annotation]
            for annotation in annotations if member.is_public else ():
                for name in () if isinstance(annotation, str | None) else annotation.iterate():
                    named = self.ours(name)
                    if named is not None and named.path not in found and _is_record(named):
                        found[named.path] = named
                        self.records(named, found)
        return found


def _is_record(named: Any) -> bool:
    return named.is_class and "dataclass" in named.labels and named.path.startswith("mlops_db.storage.")


def _sections(item: Any) -> list[Any]:
    return item.docstring.parsed if item.docstring else []


def _line(text: str) -> str:
    return " ".join(text.split())
