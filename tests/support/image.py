"""The image of the Dockerfile: built, run, and gone afterwards.

Docker does it where an engine answers. Elsewhere it is buildah, as root, since its isolation is a chroot: it needs
neither an engine nor a registry of images, because what debootstrap makes stands in for the base image.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# The release of Debian that the base image is made of, with the same Python.
RELEASE = "trixie"
# Of the machine, for the build; a proxy needs no ARG in the Dockerfile.
BUILD_ARGUMENTS = re.compile(r"(https?|no|ftp|all)_proxy|PIP_(EXTRA_)?INDEX_URL|PIP_TRUSTED_HOST", re.IGNORECASE)
CHROOT = ("--isolation=chroot", "--network=host")
# Left alone, newer versions of buildah raise them, which not every root may.
LIMITS = ("--ulimit=nofile=1024", "--ulimit=nproc=1024")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Image(Protocol):
    """An image that was built."""

    def run(
        self, *arguments: str, entrypoint: str | None = None, variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run it on the network of this machine, with these environment variables."""


Builder = Callable[[Path], AbstractContextManager[Image]]


def builder() -> Builder | None:
    """What can build an image here; None if nothing can."""
    if shutil.which("docker") and _run("docker", "version", "--format={{.Server.Version}}").returncode == 0:
        return docker_image
    if os.geteuid() == 0 and shutil.which("buildah") and shutil.which("debootstrap"):
        return buildah_image
    return None


@contextmanager
def docker_image(context: Path) -> Iterator[Image]:
    """Build the folder's Dockerfile with Docker."""
    name = f"mlops-db-test-{uuid.uuid4().hex}"
    _done("docker", "build", "--network=host", *_build_arguments(), f"--tag={name}", str(context))
    try:
        yield _DockerImage(name)
    finally:
        _done("docker", "image", "rm", name)


@contextmanager
def buildah_image(context: Path) -> Iterator[Image]:
    """Build the folder's Dockerfile with buildah."""
    # No place in memory: those are often mounted so that debootstrap makes no devices there.
    folder = tempfile.mkdtemp(prefix="mlops-db-image-", dir="/var/tmp")
    buildah = ("buildah", f"--root={folder}/images", f"--runroot={folder}/run", "--storage-driver=vfs")
    try:
        base = re.search(r"^FROM (\S+)", (context / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
        assert base is not None
        _make_base(buildah, base[1])
        _done(*buildah, "build", *CHROOT, *LIMITS, "--pull-never", *_build_arguments(), "--tag=mlops-db", str(context))
        container = _done(*buildah, "from", *CHROOT, *LIMITS, "--pull-never", "mlops-db").strip()
        config = json.loads(_done(*buildah, "inspect", container))["OCIv1"]["config"]
        yield _BuildahImage((*buildah, "run", *CHROOT), container, config["Entrypoint"], config.get("Cmd", []))
    finally:
        _done("rm", "-rf", "--one-file-system", folder)


def _make_base(buildah: Sequence[str], name: str) -> None:
    """Put a Debian where `name` would be pulled to."""
    container = _done(*buildah, "from", "scratch").strip()
    root = Path(_done(*buildah, "mount", container).strip())
    packages = "--include=python3,python3-venv,ca-certificates"
    # What debootstrap mounts goes with this namespace, even if it is killed.
    _done("unshare", "--mount", "debootstrap", "--variant=minbase", packages, RELEASE, str(root))
    (root / "usr/bin/python").symlink_to("python3")
    given = (os.environ.get(name) for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))
    found = [file for file in (*given, CERTIFICATES) if file and Path(file).is_file()]
    if found:
        shutil.copyfile(found[0], root / CERTIFICATES.relative_to("/"))
    _done(*buildah, "config", "--env=PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
    _done(*buildah, "commit", "--rm", container, name)


@dataclass(frozen=True)
class _DockerImage:
    name: str

    def run(
        self, *arguments: str, entrypoint: str | None = None, variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        options = (*_environment(variables), *([f"--entrypoint={entrypoint}"] if entrypoint else []))
        return _run("docker", "run", "--rm", "--network=host", *options, self.name, *arguments)


@dataclass(frozen=True)
class _BuildahImage:
    running: tuple[str, ...]
    container: str
    entrypoint: list[str]
    command: list[str]

    def run(
        self, *arguments: str, entrypoint: str | None = None, variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        # `buildah run` takes a command line, whatever the image says that it runs.
        command = [entrypoint, *arguments] if entrypoint else [*self.entrypoint, *(arguments or self.command)]
        return _run(*self.running, *_environment(variables), self.container, "--", *command)


def _environment(variables: Mapping[str, str]) -> list[str]:
    return [f"--env={name}={value}" for name, value in variables.items()]


def _build_arguments() -> list[str]:
    """Without their values, which can hold passwords: both engines take those from the environment."""
    return [f"--build-arg={name}" for name in os.environ if BUILD_ARGUMENTS.fullmatch(name)]


def _done(*command: str) -> str:
    done = _run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False)
