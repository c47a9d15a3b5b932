"""A small disk for the files of a throwaway server."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cluster import server_folder, server_owner


@dataclass(frozen=True)
class SmallDisk:
    """A tmpfs of its own, on which a file takes the space that is not to be free."""

    folder: Path

    @property
    def free(self) -> int:
        """Bytes."""
        return shutil.disk_usage(self.folder).free

    def fill(self, leave: int) -> None:
        """Leave so many bytes free."""
        self.make_room()
        with self._ballast.open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, self.free - leave)

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


@contextmanager
def small_disk(size: int) -> Iterator[SmallDisk]:
    """Mount a disk of so many bytes during the block; the test is skipped where nobody may mount one."""
    owner = server_owner()
    if owner is None:
        pytest.skip("a small disk is mounted by root only")
    folder = server_folder("disk", in_memory=False)
    try:
        options = f"size={size},mode=700,uid={owner.uid},gid={owner.gid}"
        done = subprocess.run(
            ["/bin/mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"root may not mount a small disk here: {done.stderr.splitlines()[0]}")
        try:
            yield SmallDisk(folder)
        finally:
            subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()
