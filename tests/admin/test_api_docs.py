import re
import sys
from dataclasses import is_dataclass

import pytest

from mlops_db import DatabaseManager
from mlops_db.admin.api_docs import markdown
from mlops_db.errors import MissingExtraError
from mlops_db.storage.decisions import Decisions
from mlops_db.storage.model_versions import ModelVersions
from mlops_db.storage.monitoring import Monitoring
from support.database import ROOT

pytestmark = pytest.mark.full_postgresql


@pytest.fixture(scope="module")
def page() -> str:
    return markdown()


def test_the_page_is_what_the_code_says(page: str) -> None:
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == page, "run `mlops-db docs` and commit it"


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("db", DatabaseManager),
        ("db.models", ModelVersions),
        ("db.monitoring", Monitoring),
        ("db.decisions", Decisions),
    ],
)
def test_every_public_name_is_there(page: str, name: str, cls: type) -> None:
    for member in vars(cls):
        if not member.startswith("_"):
            assert re.search(rf"^###? {name}\.{member}$", page, re.MULTILINE), member


def test_a_call_has_types_defaults_and_errors(page: str) -> None:
    _, _, section = page.partition("\n### db.models.list\n")
    output, _, _ = section.partition("\n### ")
    for part in (
        "    status: Literal['staging', 'production', 'archived'] | None = None,\n",
        ") -> list[ModelVersion]\n",
        "\n- `limit` (`int | None`): how many at most; None for all.\n",
        "\nRaises:\n\n- `InvalidValueError`: ",
    ):
        assert part in output


def test_what_a_call_returns_is_one_entry_with_its_whole_text(page: str) -> None:
    entries = re.findall(r"^Returns:\n\n(.+?)\n\n", page, re.MULTILINE | re.DOTALL)
    assert entries
    for entry in entries:
        assert re.fullmatch("- [A-Z].+[.]", entry), entry
    assert re.search(r"^- Long, the default: .+ Wide: a row for each moment ", page, re.MULTILINE)


def test_every_returned_type_of_ours_is_described(page: str) -> None:
    returned = set(re.findall(r"\) -> .*?([A-Z]\w+)\]?(?: \| None)?$", page, re.MULTILINE))
    modules = (sys.modules[cls.__module__] for cls in (Monitoring, ModelVersions, Decisions))
    ours = {name for module in modules for name, item in vars(module).items() if is_dataclass(item)}
    assert returned & ours
    for name in returned & ours:
        assert f"\n### {name}\n" in page or f"\n## {name}\n" in page, name


def test_it_is_readable_as_it_stands(page: str) -> None:
    assert not re.search(r"</?[a-z]+>", page)
    anchors = {title.lower().replace(".", "") for title in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\(#(\w+)\)", page)) <= anchors


def test_without_griffe_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "griffe", None)
    with pytest.raises(MissingExtraError) as missing:
        markdown()
    assert "pip install 'mlops-db[check]'" in missing.value.hint
