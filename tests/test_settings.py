import os
import re
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_db.errors import MlopsDbError, SettingsError
from mlops_db.settings import VARIABLES, Settings, Variable, check_database_name
from support.database import ROOT

pytestmark = [pytest.mark.one_postgresql, pytest.mark.libraries]

NO_FILE = Path("there-is-no-such.env")
SECRET = "tr0ub4dor&3"  # noqa: S105  (the password that no message may show)

# What an environment variable can hold: text without NUL and without the halves of surrogate pairs.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
AWKWARD = st.text("@:/%#?'\" \\&=+[],éßд漢🔑ab1\n", min_size=1, max_size=12)


def read(env_file: Path = NO_FILE, **environ: str) -> Settings:
    return Settings.from_environment(environ, env_file=env_file)


def refusal(env_file: Path = NO_FILE, **environ: str) -> str:
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
        ("MLOPS_POOL_LOCK_TIMEOUT", "5s", "pool_lock_timeout", 5_000),
        ("MLOPS_POOL_LOCK_TIMEOUT", "0s", "pool_lock_timeout", 0),
        ("MLOPS_POOL_LOCK_TIMEOUT", "", "pool_lock_timeout", 60_000),
        ("MLOPS_POOL_STATEMENT_TIMEOUT", "2min", "pool_statement_timeout", 120_000),
        ("MLOPS_POOL_STATEMENT_TIMEOUT", "", "pool_statement_timeout", 0),
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
        ("MLOPS_POOL_LOCK_TIMEOUT", "30"),
        ("MLOPS_POOL_LOCK_TIMEOUT", "none"),
        ("MLOPS_POOL_STATEMENT_TIMEOUT", "25d"),
        ("MLOPS_POOL_RECYCLE", "1d"),
        ("MLOPS_POOL_PRE_PING", "yes"),
    ],
)
def test_what_no_pool_can_be_made_of_is_named_by_the_variables_name(variable: str, value: str) -> None:
    assert variable in refusal(**{variable: value})


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


def written(folder: Path, text: str) -> Path:
    """A `.env` with exactly these characters."""
    env_file = folder / ".env"
    env_file.write_bytes(text.encode())
    return env_file


# Ways to write it that editors, shells and habits have
@pytest.mark.parametrize(
    "statement",
    [
        "MLOPS_ENV=production",
        "MLOPS_ENV = production",
        "\tMLOPS_ENV\t=\tproduction\t",
        "MLOPS_ENV=production \u00a0\u3000",
        "\u00a0MLOPS_ENV=\u3000production",
        "export MLOPS_ENV=production",
        "export\tMLOPS_ENV='production'",
        "'MLOPS_ENV'=\"production\"",
        "MLOPS_ENV='production' # it's for customers",
        "MLOPS_ENV=production # MLOPS_ENV=development to try things",
        "MLOPS_ENV='development'\nMLOPS_ENV=production",  # as in a shell, the last one counts
        "MLOPS_ENV=production\nMLOPS_ENV",
        "MLOPS_ENV=production\nexport MLOPS_ENV",
        "# a comment\nMLOPS_ENV=production",
        "OTHER='-----BEGIN KEY-----\nMIIE=\n-----END KEY-----'\nMLOPS_ENV=production",
        "OTHER='docker run -e MLOPS_ENV=development'\nMLOPS_ENV=production",
        "POSTGRES_PASSWORD='a\nb'\nMLOPS_ENV=production",
        "POSTGRES_PASSWORD=secret'\nMLOPS_ENV=production",
        "OTHER=secret'\nMLOPS_ENV=production",
        "MLOPS_DB_NAME=it's\nMLOPS_ENV=production",
        "MLOPS_POOL_APPLICATION_NAME=the 'gate'\nMLOPS_ENV=production",
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_the_file_says_is_what_counts(tmp_path: Path, statement: str, line_end: str, mark: str) -> None:
    text = f"{mark}{statement}\nPOSTGRES_HOST=db\n".replace("\n", line_end)
    found = read(written(tmp_path, text))
    assert (found.environment, found.host) == ("production", "db")


@pytest.mark.parametrize(
    "text", ["", "\n", "\ufeff", "\ufeff\n", "# nothing\n\n#", "POSTGRES_USER", "OTHER", "OTHER=1\n\x1a"]
)
def test_a_file_that_says_nothing_of_ours_changes_nothing(tmp_path: Path, text: str) -> None:
    assert read(written(tmp_path, text)) == read()


@pytest.mark.parametrize("path", ["no/such/folder/.env", "file/.env"])
def test_no_file_at_all_changes_nothing(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    assert read(tmp_path / path) == read()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("MLOPS_ENV='production", 1),
        ('MLOPS_ENV="production', 1),
        ("MLOPS_ENV='production\nOTHER=1", 1),
        ("MLOPS_ENV='production\nOTHER='1'", 1),
        ("MLOPS_ENV='production\nOTHER='", 1),  # two quotes are missing, so the value ends in the second line
        ("MLOPS_ENV='production\n# don' # so", 1),
        ("MLOPS_ENV='production\n'", 1),
        ("MLOPS_DB_NAME=mlops'", 1),
        ("MLOPS_DB_NAME=it's\"", 1),
        ("MLOPS_ENV='pro'duction", 1),
        ("MLOPS_ENV='production';", 1),
        ("MLOPS_ENV production", 1),
        ("MLOPS_ENV: production", 1),
        ("set MLOPS_ENV=production", 1),
        ("- MLOPS_ENV=production", 1),
        ("=production", 1),
        ("OTHER='1", 1),
        ("A=1\n# c\n\n \t\n\nOTHER='1", 6),
        ("A=1\r\n\r\nOTHER='1", 3),
        ("A='1\n2'\n\nOTHER='1", 4),
    ],
)
@pytest.mark.parametrize("before", ["", "\ufeff", f"POSTGRES_PASSWORD={SECRET}\n"])
def test_a_line_that_does_not_parse_is_named_by_its_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, before: str, text: str, line: int
) -> None:
    env_file = written(tmp_path, before + text)
    assert refusal(env_file).startswith(f"{env_file}: line {line + before.count(chr(10))} ")
    assert not caplog.records  # python-dotenv would warn, and go on without the line


@pytest.mark.parametrize(
    "text",
    [
        f"POSTGRES_PASSWORD='{SECRET}\nMLOPS_ENV=production\nOTHER='",
        f"POSTGRES_PASSWORD='{SECRET}\nexport MLOPS_ENV = production\nOTHER='",
        f"POSTGRES_PASSWORD='{SECRET}\n\ufeffMLOPS_ENV=production\nOTHER='",
        f"POSTGRES_PASSWORD={SECRET} MLOPS_ENV=production",
        "OTHER='1\nMLOPS_ENV=production\nANOTHER='",
        "OTHER=\"1\n'MLOPS_ENV'=production\nANOTHER=\"",
        "'OTHER\nMLOPS_ENV=production\n'",
        "'OTHER\nMLOPS_ENV=production\n'=1",
        "OTHER='1\n2\n\ufeffMLOPS_ENV=production\nANOTHER='",
        "OTHER=1 MLOPS_ENV=production",
        "OTHER=1 mlops_env=production",
        "OTHER=1;MLOPS_ENV=production",
        "OTHER=1\u2028MLOPS_ENV=production",
        "MLOPS_DB_NAME=mlops MLOPS_ENV=production",
    ],
)
def test_a_setting_inside_of_another_value_is_not_lost(tmp_path: Path, text: str) -> None:
    env_file = written(tmp_path, text)
    assert refusal(env_file) == f"{env_file}: line 1 swallows the setting MLOPS_ENV"


@pytest.mark.parametrize(
    "name",
    [
        "mlops_env",
        "Mlops_Env",
        '"MLOPS_ENV"',
        "\ufeffMLOPS_ENV",
        "\u200bMLOPS_ENV",
        "MLOPS_ENV\u200b",
        "MLOPS\u200b_ENV",
        "\x01MLOPS_ENV",
        "$MLOPS_ENV",
        "$env:MLOPS_ENV",
        "MLOPS_ENV:",
        "MLOPS_ENV+",
        "\u2018MLOPS_ENV\u2019",
    ],
)
def test_a_name_that_only_looks_like_ours_is_refused(tmp_path: Path, name: str) -> None:
    env_file = written(tmp_path, f"OTHER=1\n{name}=production\n")
    assert refusal(env_file).startswith(f"{env_file}: line 2 misspells MLOPS_ENV: ")


@pytest.mark.parametrize("line", ["MLOPS_ENV:production", "MLOPS_ENV\uff1dproduction"])
def test_what_only_looks_like_an_assignment_is_refused(tmp_path: Path, line: str) -> None:
    assert "line 1 misspells MLOPS_ENV" in refusal(written(tmp_path, line))


@pytest.mark.parametrize(
    "name", ["MLOPS_ENVIRONMENT", "MY_MLOPS_ENV", "MLOPS_ENV_FILE", "POSTGRES_HOSTS", "my_postgres_host"]
)
def test_another_programs_name_is_not_ours(tmp_path: Path, name: str) -> None:
    assert read(written(tmp_path, f"{name}=production")) == read()


@pytest.mark.parametrize(
    "value", ["https://example.com/?MLOPS_ENV=1", "MY_MLOPS_ENV=1", "1 MLOPS_ENV", "'MLOPS_ENV=1'"]
)
def test_another_programs_value_may_name_ours(tmp_path: Path, value: str) -> None:
    assert read(written(tmp_path, f"OTHER={value}")) == read()


def test_a_comment_in_place_of_a_value_is_no_value(tmp_path: Path) -> None:
    env_file = written(tmp_path, "MLOPS_POOL_APPLICATION_NAME= # what pg_stat_activity shows\n")
    try:
        assert read(env_file).pool_application_name is None
    except SettingsError as error:  # python-dotenv before 1.2.4 takes it for the value
        assert str(error) == f"{env_file}: line 1 has a comment in place of a value"  # noqa: PT017
    assert read(written(tmp_path, "POSTGRES_PASSWORD=#no#comment")).password == "#no#comment"  # noqa: S105


@pytest.mark.parametrize(
    "content",
    [
        f"POSTGRES_PASSWORD={SECRET}\xe9".encode("latin-1"),
        f"POSTGRES_PASSWORD={SECRET}".encode("utf-16"),
        f"POSTGRES_PASSWORD={SECRET}".encode("utf-16-le"),  # no mark, and valid UTF-8
        f"POSTGRES_PASSWORD={SECRET}".encode("utf-32"),
        f"OTHER=1\0\nPOSTGRES_PASSWORD={SECRET}".encode(),
    ],
)
def test_a_file_that_is_not_utf_8_is_named_by_its_name(tmp_path: Path, content: bytes) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes(content)
    assert refusal(env_file) == f"{env_file} cannot be read: it is not text in UTF-8"


KINDS = {
    "FIFO": (os.mkfifo, "not a regular file"),
    "socket": (lambda path: os.mknod(path, stat.S_IFSOCK), "not a regular file"),
    "folder": (Path.mkdir, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/null"), "not a regular file"),
    "link to a FIFO": (lambda path: (os.mkfifo(path.parent / "it"), path.symlink_to("it")), "not a regular file"),
    "link to nothing": (lambda path: path.symlink_to("nowhere"), "a broken link"),
    "link into a file": (lambda path: path.symlink_to("/dev/null/.env"), "a broken link"),
    "link to itself": (lambda path: path.symlink_to(path.name), "symbolic links"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_there_and_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    make, reason = KINDS[kind]
    env_file = tmp_path / ".env"
    make(env_file)
    message = refusal(env_file)
    assert message.startswith(f"{env_file} cannot be read: ")
    assert reason in message


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("POSTGRES_HOST=db", encoding="utf-8")
    (tmp_path / ".env").symlink_to("shared")
    assert read(tmp_path / ".env").host == "db"


@contextmanager
def without_root() -> Iterator[None]:
    """Root may read everything: be nobody for a while, if the tests run as root."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_without_permission_to_read_it_is_refused(what: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env_file = written(folder, f"MLOPS_ENV=production\nPOSTGRES_PASSWORD={SECRET}")
        folder.chmod(0o755)
        (env_file if what == "file" else folder).chmod(0)
        try:
            with without_root():
                assert refusal(env_file) == f"{env_file} cannot be read: Permission denied"
        finally:
            folder.chmod(0o755)


FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            "\n",
            "\n",
            "\n",
            "\r\n",
            "\r",
            " ",
            "\t",
            "=",
            "'",
            '"',
            "\\",
            "#",
            ";",
            "export ",
            "\ufeff",
            "\u200b",
            "\u2028",
        ]
    ),
    st.sampled_from(
        ["POSTGRES_PASSWORD='", 'OTHER="', "OTHER=", "'OTHER", "OTHER='1'", "MLOPS_ENV='production", "it's"]
    ),
    st.sampled_from(["MLOPS_DB_NAME", "POSTGRES_HOST", "MLOPS_ENV", "mlops_env", "production", "a1"]),
    st.sampled_from(["\nMLOPS_DB_NAME=name\n", "\nexport POSTGRES_HOST = db # c\n", "\nMLOPS_ENV='production'\n"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
)
STATED = re.compile(
    r"[ \t]*(?:export[ \t]+)?(MLOPS_DB_NAME|POSTGRES_HOST|MLOPS_ENV)[ \t]*=[ \t]*(['\"]?)(\w+)\2[ \t]*(?:[ \t]#.*)?",
    re.ASCII,
)


@pytest.mark.slow
@settings(max_examples=500)
@given(st.lists(FRAGMENTS, max_size=12).map("".join))
@example("OTHER='\nMLOPS_ENV=production\n'")
@example("OTHER='\nMLOPS_ENV='production'\n'")
@example("'\nMLOPS_ENV=production\n'")
@example("MLOPS_ENV=production\nMLOPS_ENV")
def test_any_file_is_refused_or_its_plain_lines_arrive(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = read(written(Path(folder), text))
        except SettingsError as error:
            assert len(f"{error}\n{error.hint}".splitlines()) == 2  # noqa: PT017
            return
    stated = [STATED.fullmatch(line) for line in re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff"))]
    arrived = {"MLOPS_DB_NAME": found.database, "POSTGRES_HOST": found.host, "MLOPS_ENV": found.environment}
    for line in filter(None, stated):
        name, _, value = line.groups()
        if len(re.findall(rf"{name}\s*['\"]?=", text)) == 1:
            assert arrived[name] == value


# The password's file


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (" pä ss ", " pä ss "),
        (" pä ss \n", " pä ss "),
        (" pä ss \r\n", " pä ss "),
        ("p\n\n", "p\n"),
        ("p\r\n\r\n", "p\r\n"),
        ("p\n\r\n", "p\n"),
        ("p\r", "p\r"),
        ("p\r\r\n", "p\r"),
        ("\np", "\np"),
        ("a\rb\r\nc", "a\rb\r\nc"),
        ("\n\n", "\n"),
        ("\ufeffp\u200b", "\ufeffp\u200b"),
    ],
)
def test_the_password_file_is_read_without_its_last_line_ending(tmp_path: Path, content: str, password: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content.encode())
    assert read(POSTGRES_PASSWORD_FILE=str(file)).password == password


def test_a_password_that_can_be_read_once_is_not_read_again(tmp_path: Path) -> None:
    regular, pipe = tmp_path / "secret", tmp_path / "pipe"
    regular.write_text(SECRET, encoding="utf-8")
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as writer:
        writer.submit(pipe.write_text, SECRET)
        once = read(POSTGRES_PASSWORD_FILE=str(pipe))
    again = read(POSTGRES_PASSWORD_FILE=str(regular))
    assert (once.password, once.password_file) == (SECRET, None)
    assert (again.password, again.password_file) == (SECRET, regular)
    assert SECRET not in repr(once) + repr(again)


def test_a_password_beside_the_file_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text("another", encoding="utf-8")
    in_url = read(MLOPS_DATABASE_URL=f"postgresql://u:{quote(SECRET)}@h/d", POSTGRES_PASSWORD_FILE="secret")  # noqa: S106
    assert (in_url.password, in_url.password_file) == (SECRET, None)
    assert read(POSTGRES_PASSWORD_FILE="secret").password_file == tmp_path / "secret"  # noqa: S106  (a file's name)


def test_an_empty_password_file_variable_counts_as_unset() -> None:
    assert read(POSTGRES_PASSWORD_FILE="", POSTGRES_PASSWORD=SECRET).password == SECRET


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\r\n", b"a\0b", b"\xff" + SECRET.encode()])
def test_a_password_file_without_a_password_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    assert "POSTGRES_PASSWORD_FILE" in refusal(POSTGRES_PASSWORD_FILE=str(file))


def test_a_directory_as_password_file_is_refused(tmp_path: Path) -> None:
    assert "POSTGRES_PASSWORD_FILE" in refusal(POSTGRES_PASSWORD_FILE=str(tmp_path))


def test_a_password_files_name_in_two_lines_is_one_line() -> None:
    assert "cannot be read" in refusal(POSTGRES_PASSWORD_FILE="/no/such\nfile")  # noqa: S106  (a file's name)


def test_both_password_variables_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("other", encoding="utf-8")
    message = refusal(POSTGRES_PASSWORD=SECRET, POSTGRES_PASSWORD_FILE=str(tmp_path / "secret"))
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
        ("POSTGRES_PORT", "5432,5433"),
        ("POSTGRES_PORT", "5432,"),
        ("POSTGRES_HOST", "one,,two"),
        ("POSTGRES_HOST", "one, two"),
        ("POSTGRES_HOST", "embedded,one"),
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
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@one,/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@,/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@one,embedded/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@one:1,two:x/mlops"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@one,two/mlops?port=1,2,3"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@one/mlops?port=1,2"),
        ("MLOPS_DATABASE_URL", f"postgresql://airflow:{SECRET}@[::1],[::2/mlops"),
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
    message = refusal(**password, **{variable: value})
    assert variable in message


def test_an_address_in_the_port_is_explained() -> None:
    assert "Kubernetes" in refusal(POSTGRES_PORT="tcp://10.0.0.1:5432")


# What nobody sees at the ends of a value

USABLE = {
    "POSTGRES_HOST": "db",
    "POSTGRES_PORT": "5432",
    "POSTGRES_USER": "airflow",
    "POSTGRES_PASSWORD_FILE": __file__,
    "MLOPS_DB_NAME": "mlops",
    "MLOPS_DATABASE_URL": f"postgresql://airflow:{quote(SECRET)}@db/mlops",
    "MLOPS_OWNER_ROLE": "mlops_owner",
    "MLOPS_ENV": "production",
    "MLOPS_LOCK_WAIT": "60s",
    "MLOPS_LOCK_TIMEOUT": "1s",
    "MLOPS_STATEMENT_TIMEOUT": "30s",
    "MLOPS_RETRY_FOR": "2min",
    "MLOPS_POOL_SIZE": "5",
    "MLOPS_POOL_OVERFLOW": "5",
    "MLOPS_POOL_TIMEOUT": "30s",
    "MLOPS_POOL_LOCK_TIMEOUT": "60s",
    "MLOPS_POOL_STATEMENT_TIMEOUT": "5min",
    "MLOPS_POOL_RECYCLE": "30min",
    "MLOPS_POOL_PRE_PING": "true",
    "MLOPS_POOL_APPLICATION_NAME": "churn gate",
}
UNSEEN_CATEGORIES = ("Cc", "Cf", "Zs", "Zl", "Zp")  # all that Python calls a space is in them
UNSEEN = {
    " ": "a blank (U+0020)",
    "\t": "a tab (U+0009)",
    "\n": "a line break (U+000A)",
    "\r": "a line break (U+000D)",
    "\x01": "a control character (U+0001)",
    "\x0b": "a control character (U+000B)",
    "\x1b": "a control character (U+001B)",
    "\x7f": "a control character (U+007F)",
    "\x85": "a control character (U+0085)",
    "\u00a0": "a blank (U+00A0)",
    "\u00ad": "an invisible character (U+00AD)",
    "\u200b": "an invisible character (U+200B)",
    "\u2028": "a blank (U+2028)",
    "\u2060": "an invisible character (U+2060)",
    "\u3000": "a blank (U+3000)",
    "\ufeff": "a byte order mark (U+FEFF)",
    "\U000e0020": "an invisible character (U+E0020)",
}


def is_unseen(character: str) -> bool:
    return unicodedata.category(character) in UNSEEN_CATEGORIES


def in_double_quotes(value: str) -> str:
    """As python-dotenv reads it back: a line break has to be an escape, or it would end a line of the file."""
    return '"{}"'.format(value.replace("\n", "\\n").replace("\r", "\\r"))


def test_the_readme_says_of_each_variable_what_its_declaration_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z_]+) \| (.*?) ?\| (.*) \|$", readme, re.MULTILINE)
    assert sorted(rows) == sorted(variable[:3] for variable in VARIABLES)


def test_the_example_has_each_variable_with_its_default() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    lines = re.findall(r"^# ([A-Z_]+)=(.*)$", example, re.MULTILINE)
    shown = dict(lines)
    declared = {variable.name for variable in VARIABLES}
    of_compose = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    assert len(shown) == len(lines)
    assert shown.keys() == declared | of_compose | {"MLOPS_WRITER_PASSWORD"}  # which `grant-writer --create` reads
    assert {variable.name: variable.default for variable in VARIABLES if variable.default}.items() <= shown.items()


@pytest.mark.parametrize("variable", [variable for variable in VARIABLES if variable.default], ids=lambda one: one.name)
def test_the_default_of_a_declaration_is_what_an_unset_variable_gives(variable: Variable) -> None:
    assert read(**{variable.name: variable.default}) == read()


def test_every_variable_but_the_password_is_tried() -> None:
    assert USABLE.keys() == {variable.name for variable in VARIABLES} - {"POSTGRES_PASSWORD"}
    for variable, value in USABLE.items():
        read(**{variable: value})


@pytest.mark.parametrize("character", UNSEEN, ids=ascii)
@pytest.mark.parametrize("variable", USABLE)
def test_what_nobody_sees_at_an_end_is_refused(tmp_path: Path, variable: str, character: str) -> None:
    begun, ended = character + USABLE[variable], USABLE[variable] + character
    assert refusal(**{variable: begun}) == f"{variable} begins with {UNSEEN[character]}"
    assert refusal(**{variable: ended}) == f"{variable} ends with {UNSEEN[character]}"
    for value, verb in ((begun, "begins"), (ended, "ends")):
        env_file = written(tmp_path, f"{variable}={in_double_quotes(value)}\n")
        assert refusal(env_file) == f"{variable} {verb} with {UNSEEN[character]}"


@given(st.sampled_from(sorted(USABLE)), st.characters(categories=UNSEEN_CATEGORIES, exclude_characters="\0"))
def test_any_character_that_nobody_sees_is_refused(variable: str, character: str) -> None:
    for value in (character, f"{character}{USABLE[variable]}", f"{USABLE[variable]}{character}"):
        assert re.fullmatch(rf"{variable} (begins|ends) with an? .*", refusal(**{variable: value}))


@pytest.mark.parametrize("name", ["a b", "a\nb", "a\tb", "a\u200bb", "a\u3000b", "e\u0301", "\u2800x\ufe0f"])
def test_within_a_value_and_of_its_letters_nothing_is_refused(tmp_path: Path, name: str) -> None:
    assert read(MLOPS_DB_NAME=name).database == name
    assert read(written(tmp_path, f"MLOPS_DB_NAME={in_double_quotes(name)}")).database == name


@pytest.mark.parametrize(
    "variable",
    [name for name in USABLE if name not in ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "MLOPS_DB_NAME")],
)
def test_an_empty_value_is_still_the_default(variable: str) -> None:
    assert read(**{variable: ""}) == read()


@pytest.mark.parametrize("part", ["host", "user", "dbname", "application_name", "sslrootcert", "passfile"])
@pytest.mark.parametrize("character", UNSEEN, ids=ascii)
def test_what_nobody_sees_at_an_end_of_a_part_of_the_url_is_refused(part: str, character: str) -> None:
    hidden = quote(character)
    for value, verb in ((f"{hidden}x", "begins"), (f"x{hidden}", "ends")):
        parts = {"host": "h", "user": "u", "dbname": "d", part: value}
        query = "" if part in ("host", "user", "dbname") else f"?{part}={value}"
        url = f"postgresql://{parts['user']}:{quote(SECRET)}@{parts['host']}/{parts['dbname']}{query}"
        assert refusal(MLOPS_DATABASE_URL=url) == f"MLOPS_DATABASE_URL: its {part} {verb} with {UNSEEN[character]}"


@pytest.mark.parametrize("character", UNSEEN, ids=ascii)
def test_a_password_is_taken_as_it_is(tmp_path: Path, character: str) -> None:
    password = f"{character}p{character}"
    (tmp_path / "secret").write_bytes(f"{password}\n".encode())
    encoded = quote(password)
    in_url = read(MLOPS_DATABASE_URL=f"postgresql://u:{encoded}@h/d?sslpassword={encoded}")
    assert read(POSTGRES_PASSWORD=password).password == password
    assert read(written(tmp_path, f"POSTGRES_PASSWORD={in_double_quotes(password)}")).password == password
    assert (in_url.password, in_url.parameters["sslpassword"]) == (password, password)
    if character != "\r":  # which is a part of the file's line end
        assert read(POSTGRES_PASSWORD_FILE=str(tmp_path / "secret")).password == password


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


# Several servers

HOSTS = st.one_of(
    st.sampled_from(["db1", "db-2.example.com", "10.0.0.1", "::1", "fe80::1%eth0", "/var/run/postgresql", "@abstract"]),
    st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(lambda host: host != "embedded"),
)
PORTS = st.one_of(st.none(), st.integers(1, 65535))


def in_a_url(host: str, port: int | None) -> str:
    written = f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe="")
    return written if port is None else f"{written}:{port}"


@given(st.lists(st.tuples(HOSTS, PORTS), min_size=2, max_size=5), PORTS)
@example([("h1", None), ("h2", None)], None)
@example([("::1", 1), ("::2", None)], 7)
def test_any_servers_of_a_url_arrive_each_with_its_port(
    servers: list[tuple[str, int | None]], of_parts: int | None
) -> None:
    parts = {} if of_parts is None else {"POSTGRES_PORT": str(of_parts)}
    expected = [(host, str(port or of_parts or 5432)) for host, port in servers]
    hosts = ",".join(host for host, _ in servers)

    authority = ",".join(in_a_url(host, port) for host, port in servers)
    in_place = read(MLOPS_DATABASE_URL=f"postgresql://u:{quote(SECRET)}@{authority}/d", **parts)
    ports = ",".join(port for _, port in expected)
    in_query = read(MLOPS_DATABASE_URL=f"postgresql://u:{quote(SECRET)}@/d?host={quote(hosts, safe=',')}&port={ports}")

    assert in_place.addresses == expected
    assert in_place == in_query
    assert read(POSTGRES_HOST=hosts, POSTGRES_PORT=ports).addresses == expected
    assert in_place.host == hosts
    shown = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in expected)
    assert in_place.target == f"u@{shown}/d"
    assert in_place.parameters == {}


def test_one_port_serves_all_hosts() -> None:
    assert read(POSTGRES_HOST="a,b", POSTGRES_PORT="6000").addresses == [("a", "6000"), ("b", "6000")]
    assert read(POSTGRES_HOST="a,b").port == 5432
    assert read(MLOPS_DATABASE_URL="postgresql://a,b/d?port=1", POSTGRES_PORT="tcp://no").port == 1


def test_what_is_asked_of_the_servers_is_libpqs_to_read() -> None:
    found = read(MLOPS_DATABASE_URL="postgresql://u@h1,h2/d?target_session_attrs=read-write&sslmode=require")
    assert found.parameters == {"target_session_attrs": "read-write", "sslmode": "require"}


@pytest.mark.parametrize(("hosts", "ports"), [("a,b", "1,2,3"), ("a,b,c", "1,2"), ("a", "1,2")])
def test_ports_that_do_not_fit_the_hosts_are_counted(hosts: str, ports: str) -> None:
    counted = f"there are {len(ports.split(','))} ports for {len(hosts.split(','))} host"
    assert refusal(POSTGRES_HOST=hosts, POSTGRES_PORT=ports).startswith(f"POSTGRES_PORT: {counted}")
    in_url = refusal(MLOPS_DATABASE_URL=f"postgresql://u:{quote(SECRET)}@{hosts}/d?port={ports}")
    assert in_url.startswith(f"MLOPS_DATABASE_URL: {counted}")


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


@given(st.one_of(TEXT, AWKWARD), st.sampled_from(["\n", "\r\n"]))
@example("p\n", "\n")
@example("p\r", "\r\n")
@example("\n", "\r\n")
def test_any_password_survives_its_file(password: str, line_end: str) -> None:
    if password.endswith("\r") and line_end == "\n":
        line_end = "\r\n"  # or the two would make up one line end
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "secret"
        file.write_bytes((password + line_end).encode())
        assert read(POSTGRES_PASSWORD_FILE=str(file)).password == password
        if not password.endswith("\n"):
            file.write_bytes(password.encode())
            assert read(POSTGRES_PASSWORD_FILE=str(file)).password == password


@given(st.text(st.characters(exclude_characters="\0\r\n'\\", exclude_categories=["Cs"]), min_size=1))
@example(" MLOPS_ENV=production ")
@example("\ufeff")
def test_any_password_of_one_line_survives_single_quotes_in_the_file(password: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert read(written(Path(folder), f"POSTGRES_PASSWORD='{password}'")).password == password


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


@given(fitting(range(1, 64)).filter(lambda name: not is_unseen(name[0]) and not is_unseen(name[-1])))
@example("x" * 63)
@example("я" * 31 + "x")
def test_any_name_of_at_most_63_bytes_passes_unchanged(name: str) -> None:
    assert check_database_name(name) == name
    assert read(MLOPS_DB_NAME=name).database == name
    assert read(MLOPS_DATABASE_URL=f"postgresql://h/{quote(name, safe='')}").database == name


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=64, max_size=200))
@example("x" * 64)
@example(" " * 64)
def test_a_name_over_63_bytes_is_refused(name: str) -> None:
    assert "MLOPS_DB_NAME" in refusal(MLOPS_DB_NAME=name)


def test_a_name_of_few_characters_and_many_bytes_is_refused() -> None:
    assert "64 bytes" in refusal(MLOPS_DB_NAME="🔑" * 16)
