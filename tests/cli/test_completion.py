import shutil
import subprocess
import sys

import pytest

from mlops_db.cli.completion import SHELLS
from support.database import TIMEOUT_S, clean_environment, run_command
from support.process import assert_failed

pytestmark = pytest.mark.full_postgresql

ENVIRONMENT = clean_environment()
BASH = shutil.which("bash") or "bash"
# Presses the tab key as bash does: calls the function that `complete` registered.
COMPLETE = """
source "$0"
function=$(complete -p mlops-db | sed 's/.* -F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$function" mlops-db "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("completion") / "mlops-db.bash"
    done = run_command("mlops-db", "completion", "bash", environment=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")
    path.write_text(done.stdout, encoding="utf-8")
    return str(path)


def test_bash_can_read_the_script(script: str) -> None:
    subprocess.run([BASH, "-n", script], check=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("mlops-db", "st"), ["status"]),
        (("mlops-db", "gr"), ["grant-reader", "grant-writer"]),
        (("mlops-db", "maintain", "--k"), ["--keep"]),
        (("mlops-db", "adopt", "--d"), ["--dry-run"]),
        (("mlops-db", "completion", "z"), ["zsh"]),
    ],
)
def test_bash_completes_commands_and_their_options(script: str, words: tuple[str, ...], offered: list[str]) -> None:
    done = subprocess.run(
        [BASH, "-c", COMPLETE, script, *words], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    assert (done.stdout.split(), done.stderr) == (offered, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_with_all_commands(shell: str) -> None:
    done = run_command("mlops-db", "completion", shell, environment=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "grant-reader" in done.stdout


def test_without_shtab_one_line_says_how_to_get_it() -> None:
    hide = "import sys; sys.modules['shtab'] = None; from mlops_db.cli.main import main; sys.exit(main())"
    done = run_command(sys.executable, "-c", hide, "completion", "bash", environment=ENVIRONMENT)
    assert_failed(done, "shtab", "pip install 'mlops-db[completion]'")
    assert done.returncode == 1


def test_another_shell_is_wrong_usage() -> None:
    done = run_command("mlops-db", "completion", "cmd", environment=ENVIRONMENT)
    assert_failed(done, "invalid choice: 'cmd'")
    assert done.returncode == 64
