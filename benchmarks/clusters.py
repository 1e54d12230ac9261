"""What a benchmark of several machines puts up on one: PostgreSQL clusters on loopback, ways to them that can be cut,
and processes that end with the benchmark, however that ends.

    with Cluster() as primary, Cluster(of=primary, name="second") as standby:
        primary.kill()
        standby.promote()

The clusters lie in folders of their own and wait for the disk. PostgreSQL does not run as root: there it is `nobody`.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg

OWNER = "keeper"
"""The role that may do everything."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "60",
}
LINGER = struct.pack("ii", 1, 0)
"""A socket that is closed sends a reset."""

# Says as what the process is started, and ends it with the pipe that it reads from, which ends with whoever holds that.
WATCHED = 'by=$1; shift; "$@" < /dev/null >&2 & echo $!; exec >&2; cat > /dev/null; kill -$by $! 2> /dev/null; wait $!'


def free_port() -> int:
    """One at which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Watched:
    """A process that gets the signal `by` when this one ends."""

    def __init__(self, command: Sequence[object], log: Path, *, by: str = "KILL", **more: Any) -> None:
        with log.open("ab") as written:
            self._shell = subprocess.Popen(
                ["sh", "-c", WATCHED, "sh", by, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                **more,
            )
        assert self._shell.stdout is not None
        self.id = int(self._shell.stdout.readline())

    @property
    def runs(self) -> bool:
        return _runs(self.id)

    def kill(self, *, children: bool = False) -> None:
        """By SIGKILL, with its `children` or without; returns when it is gone."""
        found = [self.id, *(_children(self.id) if children else ())]
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        while any(map(_runs, found)):
            time.sleep(0.01)
        self.end()

    def end(self) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()
        assert self._shell.stdout is not None
        self._shell.stdout.close()


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _children(process: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(folder.name))
    return found


def programs() -> Path:
    """The folder of the newest server installed, Debian's among them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not installed:
        raise SystemExit("there is no PostgreSQL server on this machine; install one (Debian: postgresql)")
    return max((one.parent for one in installed), key=lambda one: float(one.parent.name))


class Cluster:
    """A PostgreSQL server with a folder of its own, started; a standby where it is one `of` another server, that it
    reaches at `through` and is known to as `name`.
    """

    def __init__(
        self,
        *,
        of: "Cluster | None" = None,
        through: int | None = None,
        name: str = "first",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self._settings, self._as = free_port(), {**SETTINGS, **(settings or {})}, dict[str, Any]()
        # A path of its own, which others may enter: a server that is not root's has to come through.
        self._folder, self._programs = Path(tempfile.mkdtemp(prefix="steadface-pg", dir="/tmp")), programs()
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        self._data = self._folder / "data"
        self._process: Watched | None = None
        try:
            self._make(of, through, name)
            self.start()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self, of: "Cluster | None", through: int | None, name: str) -> None:
        if of is None:
            self._run("initdb", "-D", self._data, "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        else:
            there = f"host=127.0.0.1 port={through or of.port} user={OWNER} application_name={name} sslmode=disable"
            self._run("pg_basebackup", "-D", self._data, "-d", there, "-R", "-X", "stream", "-c", "fast")

    def start(self) -> float:
        """Returns once it answers: how many seconds that took."""
        began = time.monotonic()
        words = [f"--{name}={value}" for name, value in {**self._settings, "port": self.port}.items()]
        command = [self._programs / "postgres", "-D", self._data, *words]
        process = self._process = Watched(command, self._folder / "log", by="QUIT", cwd=self._folder, **self._as)
        while not self._answers():
            if not process.runs:
                raise SystemExit((self._folder / "log").read_text()[-2000:])
            time.sleep(0.05)
        return time.monotonic() - began

    def kill(self) -> None:
        """Postmaster and children, by SIGKILL."""
        assert self._process is not None
        self._process.kill(children=True)
        self._process = None

    def promote(self) -> None:
        """A standby; returns once it takes changes."""
        self.sql("SELECT pg_promote()")

    def sql(self, statement: str) -> list[Any]:
        """As the owner, in no transaction."""
        with self._connected() as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _connected(self) -> "psycopg.Connection[Any]":
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=OWNER, dbname="postgres", autocommit=True, connect_timeout=5
        )

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self._connected():
            return True
        return False

    def _run(self, program: str, *words: object) -> None:
        command = [str(self._programs / program), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._folder, check=False, **self._as)
        if done.returncode:
            raise SystemExit(str(done.stderr))


class Way:
    """A port from which everything is passed on to another one, until it is `cut`: silently, so that nothing passes and
    nobody is told, or by a reset of each connection and the refusal of others.
    """

    def __init__(self, target: int) -> None:
        self.port, self._target = free_port(), target
        self._open = asyncio.Event()
        self._writers = set[asyncio.StreamWriter]()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.mend()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, *, silently: bool) -> None:
        self._do(self._cut(silently=silently))

    def mend(self) -> None:
        """What waited goes on, as packets do that are sent again."""
        self._do(self._mend())

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result()

    async def _mend(self) -> None:
        self._open.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def _cut(self, *, silently: bool) -> None:
        if silently:
            self._open.clear()
            return
        if self._server is not None:
            self._server.close()
        self._server = None
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            writer.transport.abort()

    async def _end(self) -> None:
        await self._cut(silently=False)
        self._open.set()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        self._writers -= ends

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while said := await reader.read(2**16):
                await self._open.wait()
                writer.write(said)
                await writer.drain()
        writer.close()
