"""The committed dashboards are what Grafana's own TypeScript types say: panels, options, colours, overrides.

It takes npm, which brings the types and the compiler. Without npm the test is skipped, and says so.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.database import LONG_TIMEOUT_S
from support.grafana import dashboards

pytestmark = [
    pytest.mark.slow,
    pytest.mark.one_postgresql,
    pytest.mark.skipif(not shutil.which("npm"), reason="not checked against Grafana's types: there is no npm"),
]

# The version of docker-compose.yml.
PACKAGES = ("@grafana/schema@11.6.16", "typescript@5.9.3")
# The folder of the types of each kind of panel, and their file.
TYPES = {
    "timeseries": "timeseries/panelcfg/x/TimeSeriesPanelCfg",
    "state-timeline": "statetimeline/panelcfg/x/StateTimelinePanelCfg",
    "status-history": "statushistory/panelcfg/x/StatusHistoryPanelCfg",
    "stat": "stat/panelcfg/x/StatPanelCfg",
    "table": "table/panelcfg/x/TablePanelCfg",
    "barchart": "barchart/panelcfg/x/BarChartPanelCfg",
}
COMPOSABLE = "./node_modules/@grafana/schema/dist/esm/raw/composable"
WITHOUT_FIELD_CONFIG = {"stat"}
# JSON has the value of an enumeration where the types have the enumeration.
HEAD = """\
import type { AnnotationQuery, Dashboard, DataQuery, FieldConfig } from '@grafana/schema';
interface Sql extends DataQuery { rawSql: string; rawQuery: true; format: 'table'; editorMode: 'code' }
type Drawn = Omit<Dashboard, 'annotations'> & { annotations?: { list?: AnnotationQuery<Sql>[] } };
type Json<T> =
    T extends string ? `${T}`
    : T extends number ? (`${T}` extends `${infer N extends number}` ? N : number)
    : T extends (infer U)[] ? Json<U>[]
    : T extends object ? { [K in keyof T]: Json<T[K]> }
    : T;
"""
SETTINGS = {
    "compilerOptions": {"strict": True, "noEmit": True, "skipLibCheck": True, "types": [], "target": "es2022",
                        "module": "esnext", "moduleResolution": "bundler"},
    "include": ["*.ts"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the types and the compiler."""
    made = tmp_path_factory.mktemp("schema")
    (made / "package.json").write_text("{}", encoding="utf-8")
    (made / "tsconfig.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    install = ("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts")
    done = run(made, *install, *PACKAGES)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, encoding="utf-8", timeout=LONG_TIMEOUT_S, check=False
    )


def compiled(folder: Path, source: str) -> str:
    (folder / "dashboards.ts").write_text(source, encoding="utf-8")
    done = run(folder, "node_modules/.bin/tsc")
    return done.stdout + done.stderr


def source_of(given: dict[str, Any]) -> str:
    """TypeScript that only compiles if the dashboards have the types of Grafana."""
    return HEAD + "".join(f"{line}\n" for line in lines(given))


def lines(given: dict[str, Any]) -> Iterator[str]:
    for name, path in TYPES.items():
        yield f"import type * as {identifier(name)} from '{COMPOSABLE}/{path}_types.gen';"
    for uid, dashboard in given.items():
        yield constant(uid, "Drawn", dashboard)
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                continue
            name, kind = f"{uid}_{panel['id']}", identifier(panel["type"])
            yield constant(f"{name}_options", f"Partial<{kind}.Options>", panel.get("options", {}))
            defaults = panel["fieldConfig"]["defaults"]
            yield constant(f"{name}_defaults", "FieldConfig", defaults)
            custom = [defaults.get("custom", {})]
            for override in panel["fieldConfig"]["overrides"]:
                properties = {each["id"]: each["value"] for each in override["properties"]}
                custom.append({id_.removeprefix("custom."): value for id_, value in properties.items() if "." in id_})
                plain = {id_: value for id_, value in properties.items() if "." not in id_}
                yield constant(f"{name}_{len(custom)}_properties", "FieldConfig", plain)
            for place, each in enumerate(custom):
                type_ = "{}" if panel["type"] in WITHOUT_FIELD_CONFIG else f"Partial<{kind}.FieldConfig>"
                yield constant(f"{name}_{place}_custom", type_, each)


def constant(name: str, type_: str, value: Any) -> str:
    return f"export const {identifier(name)}: Json<{type_}> = {json.dumps(value)};"


def identifier(name: str) -> str:
    return name.replace("-", "_")


def test_the_dashboards_have_grafanas_types(folder: Path) -> None:
    assert compiled(folder, source_of(dashboards())) == ""


def test_what_grafana_does_not_know_is_found(folder: Path) -> None:
    text = json.dumps(dashboards())
    for known, unknown in (('"showPoints": "auto"', '"showPoints": "sometimes"'),
                           ('"repeat": "metric"', '"repeated": "metric"'),
                           ('"mode": "multi"', '"mode": "several"')):  # fmt: skip
        assert known in text
        text = text.replace(known, unknown)
    errors = compiled(folder, source_of(json.loads(text)))
    assert {"sometimes", "repeated", "several"} <= set(re.findall(r"\w+", errors))
