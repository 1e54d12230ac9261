"""A PostgreSQL server of the tests' own, on a socket in a temporary folder; it ends when they do, however they end."""

import os
import pwd
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # no machine fails here
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}
OWNER = "keeper"
"""The role that may do everything."""

# The server ends with the pipe that it reads from, so that none is left behind by tests that are killed.
WATCHED = 'postgres=$1; shift; "$postgres" "$@" & cat > /dev/null; kill -QUIT $!; wait $!'


def programs() -> Path | None:
    """The folder of the newest server installed, Debian's among them; None where there is none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((one.parent for one in installed), key=lambda one: float(one.parent.name), default=None)


class Server:
    """Started at once; `address` names a schema that nobody has used."""

    def __init__(self, programs: Path) -> None:
        # PostgreSQL does not run as root, and a socket's path may have a hundred characters.
        self._as: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._schemas = count(1)
        self._data = self.folder / "data"
        self._programs = programs
        self._run("initdb", "-D", self._data, "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()

    def start(self) -> None:
        """Returns once it answers."""
        words = [f"--{name}={value}" for name, value in SETTINGS.items()]
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                ["sh", "-c", WATCHED, "sh", self._programs / "postgres", "-D", self._data, "-k", self.folder, *words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._as,
            )
        while self._run("pg_isready", "-q", "-h", self.folder, check=False):
            assert self._process.poll() is None, (self.folder / "log").read_text()

    def stop(self) -> None:
        """At once, as if its machine had failed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def address(self, *, user: str = OWNER, **words: object) -> str:
        given = {"host": self.folder, "user": user, "schema": f"s{next(self._schemas)}"} | words
        return "postgresql:///postgres?" + "&".join(f"{name}={value}" for name, value in given.items())

    def sql(self, *statements: str) -> list[Any]:
        """What the last of them returns; as the owner, each by itself."""
        with psycopg.connect(host=str(self.folder), user=OWNER, dbname="postgres", autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *words: object, check: bool = True) -> int:
        done = subprocess.run(
            [self._programs / program, *map(str, words)], capture_output=True, cwd=self.folder, check=False, **self._as
        )
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.returncode
