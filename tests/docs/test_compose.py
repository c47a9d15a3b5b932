import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_db.settings import Settings
from support.database import ROOT, Database, clean_environment, client, run_command
from support.roles import session

pytestmark = pytest.mark.one_postgresql

VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
# Those that no command reads from the settings: for the profiles `dashboards` and `citus`.
OF_DASHBOARDS = {"MLOPS_READER_PASSWORD", "GRAFANA_ADMIN_PASSWORD", "GRAFANA_PORT"}
OF_CITUS = {"CITUS_PORT"}
OF_WRITERS = {"MLOPS_WRITER_PASSWORD"}  # which `mlops-db grant-writer` reads
# What pg_isready exits with when nobody answers; 3 would mean that it could not make sense of its arguments.
NO_ANSWER = 2


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def services(given: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The services as Compose reads them when only the variables `given` are set."""
    resolved = VARIABLE.sub(lambda match: (given or {}).get(match[1]) or match[2], text_of("docker-compose.yml"))
    found: dict[str, Any] = yaml.safe_load(resolved)["services"]
    return found


def environment_of_migrate(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Its container's environment: what has no value in the file is passed on if it is set."""
    named = services(given)["migrate"]["environment"]
    passed_on = {name: value for name, value in (given or {}).items() if name in named}
    return passed_on | {name: value for name, value in named.items() if value is not None}


def settings_of_migrate(given: Mapping[str, str] | None = None) -> Settings:
    return Settings.from_environment(environment_of_migrate(given), env_file=Path("no such file"))


def variables_of_the_readme() -> set[str]:
    _, _, section = text_of("README.md").partition("\n## Environment\n")
    return set(re.findall(r"^\| (\w+) \|", section.partition("\n## ")[0], re.MULTILINE)) - {"variable"}


def variables_of_the_example() -> set[str]:
    return set(re.findall(r"^# ?(\w+)=", text_of(".env.example"), re.MULTILINE))


def instructions(name: str) -> list[list[str]]:
    """The instructions of the last stage of the Dockerfile that start with `name`, as their words or JSON list."""
    last_stage = text_of("Dockerfile").rpartition("\nFROM ")[2]
    arguments = re.findall(rf"^{name} (.+)$", last_stage, re.MULTILINE)
    return [json.loads(each) if each.startswith("[") else each.split() for each in arguments]


def copied() -> set[str]:
    """What the Dockerfile copies out of the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", text_of("Dockerfile"), re.MULTILINE)
    return {source for line in lines for source in line.split()[:-1]}


def test_migrate_connects_as_the_settings_do_by_default() -> None:
    assert settings_of_migrate() == Settings()


@pytest.mark.parametrize("given", [{}, {"POSTGRES_USER": "somebody", "POSTGRES_PASSWORD": "changed"}])
def test_postgres_lets_in_whom_migrate_connects_as(given: dict[str, str]) -> None:
    server, settings = services(given)["postgres"]["environment"], settings_of_migrate(given)
    assert (server["POSTGRES_USER"], server["POSTGRES_PASSWORD"]) == (settings.user, settings.password)


def test_the_readme_the_example_and_migrate_know_the_variables_that_are_read() -> None:
    read = set(re.findall(r'"((?:POSTGRES|MLOPS)_\w+)"', text_of("src/mlops_db/settings.py")))
    named = set(services()["migrate"]["environment"])
    elsewhere = OF_DASHBOARDS | OF_CITUS | OF_WRITERS
    assert read == named == variables_of_the_readme() == variables_of_the_example() - elsewhere


def test_migrate_is_given_a_host_and_a_port_and_what_else_is_set() -> None:
    named = services()["migrate"]["environment"]
    given = {name: f"that of {name}" for name in named}
    assert environment_of_migrate() == {"POSTGRES_HOST": "postgres", "POSTGRES_PORT": "5432"}
    assert environment_of_migrate(given) == given | environment_of_migrate()


def test_a_developers_host_and_port_do_not_reach_into_the_stack() -> None:
    settings = settings_of_migrate({"POSTGRES_HOST": "embedded", "POSTGRES_PORT": "5433", "MLOPS_DB_NAME": "other"})
    assert (settings.host, settings.port, settings.database) == ("postgres", 5432, "other")


def test_every_variable_that_the_stack_reads_is_in_the_example() -> None:
    read = {name for name, _ in VARIABLE.findall(text_of("docker-compose.yml"))}
    assert read
    assert read <= variables_of_the_example()
    assert {name for name in OF_DASHBOARDS if name not in text_of("docs/dashboards.md")} == set()
    assert {name for name in OF_CITUS if name not in text_of("docs/scaling.md")} == set()


def test_the_server_is_published_on_this_machine_only() -> None:
    assert services()["postgres"]["ports"] == ["127.0.0.1:5432:5432"]
    assert services({"POSTGRES_PORT": "5433"})["postgres"]["ports"] == ["127.0.0.1:5433:5432"]


def test_nothing_is_published_beyond_this_machine() -> None:
    ports = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert ports == {
        "postgres": ["127.0.0.1:5432:5432"],
        "grafana": ["127.0.0.1:3000:3000"],
        "citus-coordinator": ["127.0.0.1:5433:5432"],
    }
    assert services({"GRAFANA_PORT": "3001"})["grafana"]["ports"] == ["127.0.0.1:3001:3000"]
    assert services({"CITUS_PORT": "5434"})["citus-coordinator"]["ports"] == ["127.0.0.1:5434:5432"]


def test_only_the_profiles_start_grafana_and_citus() -> None:
    profiles = {name: service.get("profiles") for name, service in services().items()}
    of_citus = {name: ["citus"] for name in profiles if name.startswith("citus-")}
    own = {"postgres": None, "migrate": None, "reader": ["dashboards"], "grafana": ["dashboards"]}
    assert len(of_citus) == 6
    assert profiles == own | of_citus


def test_nothing_of_a_profile_is_needed_without_it() -> None:
    found = services()
    for service in found.values():
        for other in service.get("depends_on", ()):
            assert found[other].get("profiles") in (None, service.get("profiles"))


def test_citus_is_prepared_brought_to_head_and_distributed_in_that_order() -> None:
    found = services()
    nodes = ["citus-coordinator", "citus-worker-1", "citus-worker-2"]
    after = {"condition": "service_completed_successfully"}
    assert found["citus-prepare"]["command"] == nodes
    assert found["citus-prepare"]["depends_on"] == {node: {"condition": "service_healthy"} for node in nodes}
    assert found["citus-migrate"]["depends_on"] == {"citus-prepare": after}
    assert found["citus-distribute"]["depends_on"] == {"citus-migrate": after}
    (command,) = instructions("CMD")
    assert [found[f"citus-{each}"]["command"] for each in ("migrate", "distribute")] == [command, ["distribute"]]
    assert {found[f"citus-{each}"]["restart"] for each in ("prepare", "migrate", "distribute")} == {"no"}


def test_the_image_of_citus_is_pinned_and_the_same_everywhere() -> None:
    (image,) = {service["image"] for service in services().values() if "citus" in service.get("image", "")}
    assert re.fullmatch(r"citusdata/citus:\d+\.\d+\.\d+", image)


def test_a_url_of_another_server_does_not_reach_the_cluster() -> None:
    given = {"MLOPS_DATABASE_URL": "postgresql://elsewhere/other", "POSTGRES_HOST": "elsewhere"}
    for name in ("citus-migrate", "citus-distribute"):
        named = services(given)[name]["environment"]
        environment = {key: given.get(key) if value is None else value for key, value in named.items()}
        settings = Settings.from_environment(
            {key: value for key, value in environment.items() if value is not None}, env_file=Path("no such file")
        )
        assert (settings.host, settings.port) == ("citus-coordinator", 5432)


@pytest.mark.parametrize("given", [{}, {"POSTGRES_USER": "a", "POSTGRES_PASSWORD": "b", "MLOPS_DB_NAME": "c"}])
def test_the_cluster_is_prepared_as_the_role_and_for_the_database_of_migrate(given: dict[str, str]) -> None:
    settings, found = settings_of_migrate(given), services(given)
    asked = {"PGUSER": settings.user, "PGPASSWORD": settings.password, "MLOPS_DB_NAME": settings.database}
    assert found["citus-prepare"]["environment"] == asked
    for node in found["citus-prepare"]["command"]:
        server = found[node]["environment"]
        assert server["POSTGRES_USER"] == settings.user
        assert server["POSTGRES_PASSWORD"] == server["PGPASSWORD"] == settings.password


def test_only_nodes_that_are_not_published_trust_their_network() -> None:
    trusting = {name for name, each in services().items() if "POSTGRES_HOST_AUTH_METHOD" in each.get("environment", {})}
    assert trusting == {"citus-worker-1", "citus-worker-2"}
    assert not [name for name in trusting if "ports" in services()[name]]


def test_the_script_that_prepares_the_cluster_is_mounted_read_only_and_is_bash() -> None:
    service = services()["citus-prepare"]
    (volume,) = service["volumes"]
    source, target, options = volume.split(":")
    shell, script = service["entrypoint"]
    path = ROOT / source / Path(script).relative_to(target)
    assert (shell, options) == ("bash", "ro")
    done = run_command("bash", "-n", str(path), environment=clean_environment())
    assert (done.returncode, done.stderr) == (0, "")


def test_grafana_waits_for_its_role_and_that_for_the_tables() -> None:
    found = services()
    after = {"condition": "service_completed_successfully"}
    assert found["grafana"]["depends_on"] == {"reader": after}
    assert found["reader"]["depends_on"] == {"migrate": after}
    assert found["reader"]["restart"] == "no"


@pytest.mark.parametrize("given", [{}, {"MLOPS_READER_PASSWORD": "changed", "MLOPS_DB_NAME": "other"}])
def test_grafana_connects_as_the_role_that_reader_makes(given: dict[str, str]) -> None:
    reader, grafana = services(given)["reader"], services(given)["grafana"]["environment"]
    command, role, create = reader["command"]
    assert (command, create) == ("grant-reader", "--create")
    assert grafana["MLOPS_READER_ROLE"] == role
    assert grafana["MLOPS_READER_PASSWORD"] == reader["environment"]["MLOPS_READER_PASSWORD"]
    assert grafana["MLOPS_READER_HOST"] == f"{settings_of_migrate(given).host}:{settings_of_migrate(given).port}"
    assert grafana["MLOPS_READER_DATABASE"] == settings_of_migrate(given).database


def test_reader_connects_as_migrate_does_but_for_the_owner_role() -> None:
    own = {"MLOPS_OWNER_ROLE": "", "MLOPS_READER_PASSWORD": "mlops_reader"}
    assert services()["reader"]["environment"] == services()["migrate"]["environment"] | own


def test_what_reader_runs_makes_a_login_that_reads(head: Database) -> None:
    reader = services()["reader"]
    _, role, _ = command = reader["command"]
    try:
        done = head.run("mlops-db", *command, MLOPS_READER_PASSWORD="changed")  # noqa: S106  (not secret)
        assert done.returncode == 0, done.stderr
        with session(replace(head.settings, user=role, password="changed")) as connection:  # noqa: S106  (not secret)
            assert connection.execute("SELECT * FROM public.v_recent_monitoring").fetchall() == []
    finally:
        head.query(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_grafana_may_not_change_what_the_checkout_gives_it() -> None:
    mounted = [volume.split(":") for volume in services()["grafana"]["volumes"]]
    folders = {source: options for source, _, *options in mounted if source.startswith("./")}
    assert folders == {"./grafana/provisioning": ["ro"], "./grafana/dashboards": ["ro"]}


def test_grafana_lets_in_nobody_without_a_password_and_calls_nobody() -> None:
    environment = services()["grafana"]["environment"]
    assert not [name for name in environment if name.startswith("GF_AUTH_ANONYMOUS")]
    calling = re.compile(r"GF_(ANALYTICS|NEWS|PLUGINS|SECURITY_DISABLE)_")
    assert {name: value for name, value in environment.items() if calling.match(name)} == {
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_SECURITY_DISABLE_GRAVATAR": "true",
    }


def test_the_data_source_gets_each_of_its_variables_and_holds_no_secret() -> None:
    text = text_of("grafana/provisioning/datasources/mlops.yaml")
    named = set(re.findall(r"\$\{(\w+)\}", text))
    assert named == {name for name in services()["grafana"]["environment"] if name.startswith("MLOPS_")}
    (source,) = yaml.safe_load(text)["datasources"]
    assert source["secureJsonData"] == {"password": "${MLOPS_READER_PASSWORD}"}


def test_grafana_finds_the_dashboards_where_they_are_mounted() -> None:
    (provider,) = yaml.safe_load(text_of("grafana/provisioning/dashboards/mlops.yaml"))["providers"]
    mounted = {volume.split(":")[1]: ROOT / volume.split(":")[0] for volume in services()["grafana"]["volumes"]}
    folder = provider["options"]["path"]
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(folder)
    assert (mounted[folder] / Path(home).name).is_file()


def test_airflow_keeps_a_database_of_its_own() -> None:
    assert services()["postgres"]["environment"]["POSTGRES_DB"] == "airflow" != Settings().database


def test_the_health_check_asks_over_tcp_as_migrate_does() -> None:
    kind, script = services()["postgres"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    assert "--host=127.0.0.1" in script
    done = run_command(
        "sh",
        "-c",
        script.replace("$$", "$"),  # Compose's way to write a $ for the shell
        environment=clean_environment(
            PATH=f"{Path(client('pg_isready')).parent}:/usr/bin:/bin",
            PGPORT="1",
            POSTGRES_USER="a b",
            POSTGRES_DB="c d",
        ),
    )
    assert (done.returncode, done.stderr) == (NO_ANSWER, "")


def test_migrate_runs_once_as_soon_as_the_server_is_healthy() -> None:
    migrate = services()["migrate"]
    assert migrate["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert migrate["restart"] == "no"


def test_what_migrate_and_the_image_run_brings_a_database_to_head(empty: Database) -> None:
    (entry_point,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")
    assert services()["migrate"]["command"] == command
    done = empty.run(*entry_point, *command)
    assert done.returncode == 0, done.stderr
    assert empty.value("SELECT count(*) FROM v_recent_monitoring") == 0


def test_the_image_runs_as_a_user_without_rights() -> None:
    ((user,),) = instructions("USER")
    assert int(user) > 0


def test_an_image_is_built_from_the_package_and_nothing_else() -> None:
    ignored, *rules = [line for line in text_of(".dockerignore").splitlines() if not line.startswith("#")]
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert ignored == "*"
    assert let_in == copied() == {"LICENSE", "README.md", "alembic.ini", "migrations", "pyproject.toml", "src"}
    assert not any(fnmatch(secret, rule) for secret in (".env", ".env.local", ".git", ".mlops-db") for rule in let_in)


@pytest.fixture
def compose() -> list[str]:
    """Compose's command line: the first one, or that of the plugin."""
    for command in (["docker-compose"], ["docker", "compose"]):
        version = (*command, "version")
        if shutil.which(command[0]) and run_command(*version, environment=clean_environment()).returncode == 0:
            return command
    pytest.skip("neither docker-compose nor Docker's plugin is installed")


def test_compose_passes_on_what_is_set_and_special_characters_in_a_password(compose: list[str], tmp_path: Path) -> None:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    password = """p$a#s "x%{y}@:/?"""  # noqa: S105  (this test's own)
    (tmp_path / ".env").write_text(
        f"POSTGRES_PASSWORD='{password}'\nPOSTGRES_HOST=embedded\nMLOPS_DB_NAME=данные\nMLOPS_ENV=production\n",
        encoding="utf-8",
    )
    done = run_command(*compose, "config", environment=clean_environment(MLOPS_ENV="development"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = yaml.safe_load(done.stdout)["services"]["migrate"]["environment"]
    set_ones = {name: value.replace("$$", "$") for name, value in environment.items() if value is not None}
    assert set_ones == {
        "POSTGRES_HOST": "postgres",
        "POSTGRES_PORT": "5432",
        "POSTGRES_PASSWORD": password,
        "MLOPS_DB_NAME": "данные",
        "MLOPS_ENV": "development",
    }
    assert Settings.from_environment({}, env_file=tmp_path / ".env").password == password
