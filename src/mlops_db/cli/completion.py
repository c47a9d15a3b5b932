"""Print the script that makes a shell complete `mlops-db`.

For bash: mlops-db completion bash >~/.local/share/bash-completion/completions/mlops-db

For zsh, into a folder of fpath: mlops-db completion zsh >~/.zfunc/_mlops-db
"""

from argparse import ArgumentParser, Namespace

from mlops_db.cli.main import program_parser
from mlops_db.errors import require_extra

SHELLS = ("bash", "zsh")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")


def run(options: Namespace) -> int:
    """Print the script.

    Raises:
        MissingExtraError: shtab is not installed.
    """
    with require_extra("completion", "shell completion needs the package shtab, which is not installed"):
        import shtab  # noqa: PLC0415  (optional)
    print(shtab.complete(program_parser(with_arguments=True), shell=options.shell))
    return 0
