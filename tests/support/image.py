"""Builds the image of the Dockerfile, runs it, and removes it.

Docker does this if its engine answers, else buildah as root. buildah needs neither an engine nor a registry of images:
it isolates with chroot, and debootstrap makes the base image.
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

# The Debian release of the base image, which has the same Python.
RELEASE = "trixie"
# The build takes these from this machine. A proxy needs no ARG in the Dockerfile.
BUILD_ARGUMENTS = re.compile(r"(https?|no|ftp|all)_proxy|PIP_(EXTRA_)?INDEX_URL|PIP_TRUSTED_HOST", re.IGNORECASE)
CHROOT = ("--isolation=chroot", "--network=host")
# Newer versions of buildah raise the limits by default, and not every root may do that.
LIMITS = ("--ulimit=nofile=1024", "--ulimit=nproc=1024")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Image(Protocol):
    """A built image."""

    def run(
        self, *arguments: str, entrypoint: str | None = None, variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run it on the network of this machine, with these environment variables."""


Builder = Callable[[Path], AbstractContextManager[Image]]


def builder() -> Builder | None:
    """The program that can build an image on this machine; None if there is none."""
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
    # Not in memory: such file systems are often mounted without devices, and debootstrap creates some.
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
    """Make a Debian image with the name of the base image, so that it is not pulled."""
    container = _done(*buildah, "from", "scratch").strip()
    root = Path(_done(*buildah, "mount", container).strip())
    packages = "--include=python3,python3-venv,ca-certificates"
    # The mounts of debootstrap end with this namespace, even if debootstrap is killed.
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
        # `buildah run` ignores the entry point of the image.
        command = [entrypoint, *arguments] if entrypoint else [*self.entrypoint, *(arguments or self.command)]
        return _run(*self.running, *_environment(variables), self.container, "--", *command)


def _environment(variables: Mapping[str, str]) -> list[str]:
    return [f"--env={name}={value}" for name, value in variables.items()]


def _build_arguments() -> list[str]:
    """The names only, because the values can contain passwords. Both engines read the values from the environment."""
    return [f"--build-arg={name}" for name in os.environ if BUILD_ARGUMENTS.fullmatch(name)]


def _done(*command: str) -> str:
    done = _run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False)
