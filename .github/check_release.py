"""Checks that a tag may be released: `python .github/check_release.py v0.2.0`.

The tag is the package's version with a `v` before it, CHANGELOG.md describes that version, and all revisions are
frozen.
"""

import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = Path("migrations", "versions")
DATED = re.compile(r" - \d{4}-\d{2}-\d{2}")


def main(arguments: list[str]) -> int:
    """Print what keeps the tag from being released; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python .github/check_release.py TAG", file=sys.stderr)
        return 64
    problems = find_problems(arguments[0], read_version(ROOT), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    problems += find_unfrozen(ROOT / VERSIONS) or find_frozen_again(ROOT, arguments[0])
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def read_version(root: Path) -> str:
    """Read the version from the source, as the build does."""
    source = (root / "src" / "mlops_db" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    if found is None:
        raise SystemExit("error: src/mlops_db/__init__.py has no __version__")
    return found[1]


def find_problems(tag: str, version: str, changelog: str) -> list[str]:
    """List what is wrong with the tag, the version or the changelog."""
    problems = []
    if tag != f"v{version}":
        problems.append(
            f"the tag is {tag}, and src/mlops_db/__init__.py has version {version}. Tag the commit v{version},"
            " or change __version__."
        )
    sections = read_sections(changelog)
    dated, text = sections.get(version, ("", ""))
    if not text:
        problems.append(
            f"CHANGELOG.md has no entries for {version}. Move those under Unreleased to `## {version} - YYYY-MM-DD`."
        )
    elif not DATED.fullmatch(dated):
        problems.append(f"CHANGELOG.md has no date for {version}. Write `## {version} - YYYY-MM-DD`.")
    if sections.get("Unreleased", ("", ""))[1]:
        problems.append(f"CHANGELOG.md still has entries under Unreleased. Move them to {version}.")
    return problems


def find_unfrozen(folder: Path) -> list[str]:
    """List the files of revisions that frozen.sha256 does not have as they are."""
    frozen = folder / "frozen.sha256"
    lines = frozen.read_text(encoding="utf-8", errors="replace").splitlines() if frozen.exists() else []
    paths = sorted([*folder.glob("*.py"), *folder.glob("sql/*.sql")])
    names = {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in paths}
    missing = [name for name, checksum in names.items() if f"{checksum}  {name}" not in lines]
    released = {line.partition("  ")[2] for line in lines}
    changed = [name for name in missing if name in released]
    if changed:  # to write their checksums anew would hide the change
        return [f"{VERSIONS}/frozen.sha256 has another checksum of {_first(changed)}. Restore what was released."]
    write = f"(cd {VERSIONS} && sha256sum *.py sql/*.sql > frozen.sha256)"
    if missing:
        return [f"{VERSIONS}/frozen.sha256 does not have the checksum of {_first(missing)}. Write it: {write}"]
    return []


def find_frozen_again(root: Path, new: str) -> list[str]:
    """List the files whose checksums are not those of the release before `new`; none without git or its tags."""
    git = ("git", "-C", str(root))
    try:
        tag = _output(*git, "describe", "--tags", "--abbrev=0", "--match=v*", f"--exclude={new}").strip()
        before = _output(*git, "show", f"{tag}:{VERSIONS.as_posix()}/frozen.sha256").splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
    now = (root / VERSIONS / "frozen.sha256").read_text(encoding="utf-8").splitlines()
    changed = [line.partition("  ")[2] for line in before if line not in now]
    if not changed:
        return []
    return [f"{VERSIONS}/frozen.sha256 of {tag} has another checksum of {_first(changed)}. Restore what was released."]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  (git's)


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if names[1:] else "")


def read_sections(changelog: str) -> dict[str, tuple[str, str]]:
    """Read the changelog: by version, what follows the version in its heading, and the entries."""
    _, *parts = re.split(r"^## (\S+)(.*)\n", changelog, flags=re.MULTILINE)
    triples = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return {version: (rest, text.strip()) for version, rest, text in triples}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
