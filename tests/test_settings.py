from dataclasses import FrozenInstanceError
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_db.errors import MlopsDbError, SettingsError
from mlops_db.settings import Settings, checked_database_name

NO_FILE = Path("there-is-no-such.env")
SECRET = "tr0ub4dor&3"  # noqa: S105  (the password that no message may show)

# A slow machine is no failure, and a checkout may be another user's.
settings.register_profile("mlops-db", deadline=None, database=None)
settings.load_profile("mlops-db")

# What an environment variable can hold: text without NUL and without the halves of surrogate pairs.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
AWKWARD = st.text("@:/%#?'\" \\&=+[],éßд漢🔑ab1\n", min_size=1, max_size=12)


def read(env_file: Path = NO_FILE, **environ: str) -> Settings:
    return Settings.from_environment(environ, env_file=env_file)


def told(env_file: Path = NO_FILE, **environ: str) -> str:
    """What the user reads about an environment that cannot be used."""
    with pytest.raises(SettingsError) as caught:
        read(env_file, **environ)
    message, hint = str(caught.value), caught.value.hint
    assert message
    assert hint
    assert len(f"{message}\n{hint}".splitlines()) == 2
    assert SECRET not in message + hint
    return message


def test_an_empty_environment_gives_the_specifications_defaults() -> None:
    assert read() == Settings(
        host="postgres",
        port=5432,
        user="airflow",
        password="airflow",  # noqa: S106  (the specification's)
        database="mlops",
        environment="development",
        parameters={},
    )


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        read().host = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        read(MLOPS_DATABASE_URL="postgresql://h/d?sslmode=require").parameters["sslmode"] = "disable"  # type: ignore[index]


@pytest.mark.parametrize(
    ("variable", "value", "attribute", "expected"),
    [
        ("POSTGRES_HOST", "db.example.com", "host", "db.example.com"),
        ("POSTGRES_HOST", "/var/run/postgresql", "host", "/var/run/postgresql"),
        ("POSTGRES_HOST", "::1", "host", "::1"),
        ("POSTGRES_HOST", "embedded", "host", "embedded"),
        ("POSTGRES_PORT", "6543", "port", 6543),
        ("POSTGRES_PORT", "1", "port", 1),
        ("POSTGRES_PORT", "65535", "port", 65535),
        ("POSTGRES_USER", "Jöhn Doe", "user", "Jöhn Doe"),
        ("POSTGRES_PASSWORD", SECRET, "password", SECRET),
        ("POSTGRES_PASSWORD", " spaces stay ", "password", " spaces stay "),
        ("POSTGRES_PASSWORD", "", "password", None),
        ("MLOPS_DB_NAME", 'Mlops"x', "database", 'Mlops"x'),
        ("MLOPS_ENV", "production", "environment", "production"),
        ("MLOPS_ENV", "", "environment", "development"),
        ("MLOPS_DATABASE_URL", "", "host", "postgres"),
        ("MLOPS_POOL_SIZE", "1", "pool_size", 1),
        ("MLOPS_POOL_SIZE", "", "pool_size", 5),
        ("MLOPS_POOL_OVERFLOW", "0", "pool_overflow", 0),
        ("MLOPS_POOL_OVERFLOW", "1000", "pool_overflow", 1000),
        ("MLOPS_POOL_TIMEOUT", "500ms", "pool_timeout", 500),
        ("MLOPS_POOL_RECYCLE", "0s", "pool_recycle", 0),
        ("MLOPS_POOL_PRE_PING", "false", "pool_pre_ping", False),
        ("MLOPS_POOL_PRE_PING", "true", "pool_pre_ping", True),
        ("MLOPS_POOL_APPLICATION_NAME", "churn gate", "pool_application_name", "churn gate"),
        ("MLOPS_POOL_APPLICATION_NAME", "", "pool_application_name", None),
    ],
)
def test_each_variable_sets_its_attribute(variable: str, value: str, attribute: str, expected: object) -> None:
    assert getattr(read(**{variable: value}), attribute) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLOPS_POOL_SIZE", "0"),
        ("MLOPS_POOL_SIZE", "1001"),
        ("MLOPS_POOL_SIZE", "9" * 5000),
        ("MLOPS_POOL_SIZE", "five"),
        ("MLOPS_POOL_OVERFLOW", "-1"),
        ("MLOPS_POOL_TIMEOUT", "30"),
        ("MLOPS_POOL_RECYCLE", "1d"),
        ("MLOPS_POOL_PRE_PING", "yes"),
    ],
)
def test_what_no_pool_can_be_made_of_is_told_by_the_variables_name(variable: str, value: str) -> None:
    assert variable in told(**{variable: value})


@pytest.mark.parametrize("variable", ["PGPASSWORD", "PGPASSFILE"])
def test_libpqs_password_variables_replace_the_default_password_but_not_a_given_one(variable: str) -> None:
    assert read(**{variable: "/run/pgpass"}).password is None
    assert read(**{variable: "/run/pgpass"}, POSTGRES_PASSWORD=SECRET).password == SECRET


# The file .env


def test_the_file_in_the_working_directory_is_read_and_real_variables_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "# here\nPOSTGRES_HOST=file\nexport POSTGRES_PORT=6000\nMLOPS_DB_NAME='my db # 1'\nOTHER=1\nPOSTGRES_USER\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    for variable in ("POSTGRES_HOST", "POSTGRES_USER", "MLOPS_DB_NAME", "MLOPS_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("POSTGRES_PORT", "7000")

    found = Settings.from_environment()

    assert (found.host, found.port, found.database, found.user) == ("file", 7000, "my db # 1", "airflow")


def test_values_of_the_file_are_not_interpolated(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("POSTGRES_USER=root\nPOSTGRES_PASSWORD=a${POSTGRES_USER}$x%(here)s\n", encoding="utf-8")
    assert read(env_file).password == "a${POSTGRES_USER}$x%(here)s"  # noqa: S105  (not a secret)


@pytest.mark.parametrize(
    ("lines", "environ", "expected"),
    [
        ("MLOPS_DATABASE_URL=postgresql://file/db", {"POSTGRES_HOST": "embedded"}, ("embedded", "airflow")),
        ("MLOPS_DATABASE_URL=postgresql://file/db", {}, ("file", None)),
        ("POSTGRES_HOST=file", {"MLOPS_DATABASE_URL": "postgresql://real/db"}, ("real", None)),
        ("POSTGRES_PASSWORD_FILE=/gone", {"POSTGRES_PASSWORD": SECRET}, ("postgres", SECRET)),
        ("POSTGRES_PASSWORD=file", {"PGPASSWORD": "libpq"}, ("postgres", "file")),
    ],
)
def test_a_real_variable_does_not_lose_to_its_rival_in_the_file(
    tmp_path: Path, lines: str, environ: dict[str, str], expected: tuple[str, str | None]
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(lines, encoding="utf-8")
    found = read(env_file, **environ)
    assert (found.host, found.password) == expected


def test_a_real_password_file_beats_the_password_of_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=old", encoding="utf-8")
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    assert read(tmp_path / ".env", POSTGRES_PASSWORD_FILE=str(tmp_path / "secret")).password == SECRET


def test_a_file_that_is_not_utf_8_is_told_by_its_name(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes(f"POSTGRES_PASSWORD={SECRET}\xe9".encode("latin-1"))
    assert str(env_file) in told(env_file)


# The password's file


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_password_file_is_read_without_its_last_line_ending(tmp_path: Path, ending: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(f" pä ss {ending}".encode())
    assert read(POSTGRES_PASSWORD_FILE=str(file)).password == " pä ss "  # noqa: S105  (not a secret)


def test_an_empty_password_file_variable_counts_as_unset() -> None:
    assert read(POSTGRES_PASSWORD_FILE="", POSTGRES_PASSWORD=SECRET).password == SECRET


@pytest.mark.parametrize("content", [None, b"", b"\n", b"a\0b", b"\xff" + SECRET.encode()])
def test_a_password_file_without_a_password_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    assert "POSTGRES_PASSWORD_FILE" in told(POSTGRES_PASSWORD_FILE=str(file))


def test_a_directory_as_password_file_is_refused(tmp_path: Path) -> None:
    assert "POSTGRES_PASSWORD_FILE" in told(POSTGRES_PASSWORD_FILE=str(tmp_path))


def test_both_password_variables_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("other", encoding="utf-8")
    message = told(POSTGRES_PASSWORD=SECRET, POSTGRES_PASSWORD_FILE=str(tmp_path / "secret"))
    assert "POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE" in message


# Wrong values


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POSTGRES_HOST", ""),
        ("POSTGRES_USER", ""),
        ("POSTGRES_PORT", ""),
        ("POSTGRES_PORT", "x"),
        ("POSTGRES_PORT", "0"),
        ("POSTGRES_PORT", "-1"),
        ("POSTGRES_PORT", "70000"),
        ("POSTGRES_PORT", "5432.0"),
        ("POSTGRES_PORT", " 5432"),
        ("POSTGRES_PORT", "٥٤٣٢"),  # digits to Python, not to a server
        ("POSTGRES_PORT", "1" * 5000),  # more digits than Python converts
        ("POSTGRES_PORT", "tcp://10.0.0.1:5432"),
        ("MLOPS_DB_NAME", ""),
        ("MLOPS_DB_NAME", "x" * 64),
        ("MLOPS_DB_NAME", "я" * 32),
        ("MLOPS_DB_NAME", "nul\0"),
        ("MLOPS_ENV", "prod"),
        ("MLOPS_ENV", "Production"),
        ("POSTGRES_USER", "latin-1 \udce9"),
        ("POSTGRES_PASSWORD", "latin-1 \udce9"),
        ("MLOPS_DATABASE_URL", "mlops"),
        ("MLOPS_DATABASE_URL", "host=db password=tr0ub4dor&3"),
        ("MLOPS_DATABASE_URL", f"mysql://airflow:{SECRET}@db/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql:/airflow:{SECRET}@db/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@db:x/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@db:0/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@db:70000/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@one,two/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@db/mlops?no_such_parameter=1"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@db/{'x' * 64}"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:1@{SECRET}@db/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:1/{SECRET}@db/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:1#{SECRET}@db/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}/1@db/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}%zz@db/mlops"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_variable(variable: str, value: str) -> None:
    password = {} if variable == "POSTGRES_PASSWORD" else {"POSTGRES_PASSWORD": SECRET}
    message = told(**password, **{variable: value})
    assert variable in message


def test_an_address_in_the_port_is_explained() -> None:
    assert "Kubernetes" in told(POSTGRES_PORT="tcp://10.0.0.1:5432")


# The URL


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"])
def test_a_whole_url_wins_over_the_parts(scheme: str) -> None:
    found = read(
        MLOPS_DATABASE_URL=f"{scheme}://me:{quote(SECRET)}@db.example.com:6543/other",
        POSTGRES_HOST="h",
        POSTGRES_PORT="1",
        POSTGRES_USER="u",
        POSTGRES_PASSWORD="p",  # noqa: S106  (not a secret)
        MLOPS_DB_NAME="d",
    )
    assert found == Settings(host="db.example.com", port=6543, user="me", password=SECRET, database="other")


@pytest.mark.parametrize(
    ("url", "host", "user", "database"),
    [
        ("postgresql://u%40x@[::1]:6543/d", "::1", "u@x", "d"),
        ("postgresql://%2Fvar%2Frun/my%20d%C3%A9p%25", "/var/run", "airflow", "my dép%"),
        ("postgresql:///d?host=/var/run&user=u", "/var/run", "u", "d"),
        ("postgresql://h", "h", "airflow", "mlops"),
    ],
)
def test_urls_are_read_as_libpq_reads_them(url: str, host: str, user: str, database: str) -> None:
    found = read(MLOPS_DATABASE_URL=url)
    assert (found.host, found.user, found.database) == (host, user, database)


def test_the_urls_query_holds_further_connection_parameters() -> None:
    query = f"sslmode=require&options=-c%20work_mem%3D1MB&sslpassword={quote(SECRET)}"
    found = read(MLOPS_DATABASE_URL=f"postgresql://h/d?{query}")
    assert found.parameters == {"sslmode": "require", "options": "-c work_mem=1MB", "sslpassword": SECRET}
    assert SECRET not in repr(found)


@pytest.mark.parametrize("url", ["postgresql://me@h/d", "postgresql://me@h", "postgresql://h:5432"])
def test_a_url_without_password_leaves_it_to_libpq(url: str) -> None:
    assert read(MLOPS_DATABASE_URL=url).password is None
    assert read(MLOPS_DATABASE_URL=url, POSTGRES_PASSWORD=SECRET).password == SECRET


# Passwords, any


@given(st.one_of(TEXT, AWKWARD))
def test_any_password_survives_the_environment_and_the_url(password: str) -> None:
    given_alone = read(POSTGRES_PASSWORD=password)
    in_url = read(MLOPS_DATABASE_URL=f"postgresql://airflow:{quote(password, safe='')}@postgres:5432/mlops")
    assert given_alone.password == password
    assert in_url == given_alone


@given(st.one_of(TEXT, AWKWARD))
def test_nothing_that_can_be_read_depends_on_the_password(password: str) -> None:
    def readable(password: str) -> list[str]:
        url = f"postgresql://airflow:{quote(password, safe='')}@db"
        environments = [
            {"POSTGRES_PASSWORD": password},
            {"MLOPS_DATABASE_URL": f"{url}/mlops"},
            {"POSTGRES_PASSWORD": password, "POSTGRES_PORT": "x"},
            {"POSTGRES_PASSWORD": password, "MLOPS_ENV": "prod"},
            {"POSTGRES_PASSWORD": password, "POSTGRES_PASSWORD_FILE": "/run/secrets/password"},
            {"MLOPS_DATABASE_URL": f"{url}:x/mlops"},
            {"MLOPS_DATABASE_URL": f"{url},other/mlops"},
            {"MLOPS_DATABASE_URL": f"{url}/mlops?no_such_parameter=1"},
        ]
        return [seen(environ) for environ in environments]

    assert readable(password) == readable("another")


@given(AWKWARD)
@example("pass@word")
@example("pass/word")
@example("pass#word")
@example("5432/@")
@example("a@b/c@d?e")
@example("%a1")  # not UTF-8 once it is decoded
def test_a_password_that_nobody_encoded_is_refused_without_being_shown(password: str) -> None:
    try:
        shown = read(MLOPS_DATABASE_URL=f"postgresql://airflow:{password}@db/mlops").target
    except SettingsError as error:
        shown = str(error)
    # The same words for every password, so they hold nothing of it.
    assert shown in {
        "airflow@db:5432/mlops",
        "MLOPS_DATABASE_URL is not a URL of one PostgreSQL database",
        "MLOPS_DATABASE_URL: its port is not a port number",
    }


def seen(environ: dict[str, str]) -> str:
    try:
        found = read(**environ)
    except MlopsDbError as error:
        return f"{error!r} {error} {error.hint}"
    return f"{found!r} {found} {found.target}"


# Names of databases, any


def fitting(sizes: range) -> st.SearchStrategy[str]:
    return TEXT.filter(lambda name: len(name.encode()) in sizes)


@given(fitting(range(1, 64)))
@example("x" * 63)
@example("я" * 31 + "x")
def test_any_name_of_at_most_63_bytes_passes_unchanged(name: str) -> None:
    assert checked_database_name(name) == name
    assert read(MLOPS_DB_NAME=name).database == name
    assert read(MLOPS_DATABASE_URL=f"postgresql://h/{quote(name, safe='')}").database == name


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=64, max_size=200))
@example("x" * 64)
def test_a_name_over_63_bytes_is_refused(name: str) -> None:
    assert "MLOPS_DB_NAME" in told(MLOPS_DB_NAME=name)


def test_a_name_of_few_characters_and_many_bytes_is_refused() -> None:
    assert "64 bytes" in told(MLOPS_DB_NAME="🔑" * 16)
