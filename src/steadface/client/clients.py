"""The two clients: one conversation with the service, held waiting or awaiting."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload
from urllib.parse import urlsplit

from steadface.client import calls
from steadface.client.answers import Person
from steadface.client.calls import Call
from steadface.client.problems import error_of, seconds_of
from steadface.client.retries import Retries
from steadface.errors import InvalidInput, SteadfaceError, Unavailable, Unsupported

try:
    import httpx
except ImportError:
    raise Unsupported("the client needs the package httpx: pip install 'steadface[client]'") from None

Asked = ParamSpec("Asked")
Answered = TypeVar("Answered")
Talk = Generator[float | Call[Any], Any, Any]
"""What is to be done next, a wait in seconds or a call that is to be sent, and what came of it."""

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
PAGE = 1000


class Sent(Generic[Asked, Answered]):
    """A method of either client that sends a call and gives, or awaits, its answer."""

    def __init__(self, call: Callable[Asked, Call[Answered]]) -> None:
        self._call = call
        self.__doc__ = call.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Asked, Call[Answered]]: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[Asked, Answered]: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type) -> Callable[Asked, Awaitable[Answered]]: ...
    def __get__(self, client: "Client | AsyncClient | None", owner: type) -> Callable[Asked, Any]:
        if client is None:
            return self._call
        send: Callable[[Call[Answered]], Any] = client.send

        @wraps(self._call)
        def method(*args: Asked.args, **kwargs: Asked.kwargs) -> Any:
            return send(self._call(*args, **kwargs))

        return method


class _Methods:
    """What both clients have. `url` is that of the service, `key` the API key, `collection` the one that is meant
    where a call names none, `timeout` in seconds for each step of a try.
    """

    detect = Sent(calls.detect)
    verify = Sent(calls.verify)
    identify = Sent(calls.identify)
    embed = Sent(calls.embed)
    enroll = Sent(calls.enroll)
    add_template = Sent(calls.add_template)
    people_page = Sent(calls.people_page)
    person = Sent(calls.person)
    rename = Sent(calls.rename)
    remove = Sent(calls.remove)
    remove_template = Sent(calls.remove_template)
    model = Sent(calls.model)
    collections = Sent(calls.collections)
    log = Sent(calls.log)
    expire = Sent(calls.expire)
    keys = Sent(calls.keys)
    make_key = Sent(calls.make_key)
    rotate_key = Sent(calls.rotate_key)
    revoke_key = Sent(calls.revoke_key)
    live = Sent(calls.live)
    ready = Sent(calls.ready)

    def __init__(self, url: str, key: str | None, collection: str | None, retries: Retries | None) -> None:
        self.url = _checked(url)
        self._key, self._collection = key, collection
        self._retries = Retries() if retries is None else retries

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _options(self, timeout: float) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if self._key is not None:
            if not self._key.isascii() or not self._key.isprintable():
                raise InvalidInput("the API key holds characters that none has; give it as it was shown")
            headers["Authorization"] = f"Bearer {self._key}"
        return {"base_url": self.url, "headers": headers, "timeout": timeout}

    def _request(self, call: Call[Any]) -> dict[str, Any]:
        """As httpx takes it."""
        query = dict(call.query)
        if self._collection is not None and not call.path.startswith(("/v1/keys", "/v1/health", "/v1/collections")):
            query.setdefault("collection", self._collection)
        told: dict[str, Any] = {"method": call.method, "url": call.path, "params": query}
        if call.pictures:
            told["files"] = [(name, ("picture", data)) for name, data in call.pictures]
            told["data"] = {name: str(value) for name, value in call.words.items()}
        elif call.words:
            told["json"] = dict(call.words)
        if call.request is not None:
            told["headers"] = {"Idempotency-Key": call.request}
        return told

    def _talk(self, call: Call[Answered]) -> Generator[float | Call[Any], Any, Answered]:
        """Sends a call until it is answered or may not be sent again. Raises SteadfaceError."""
        tried = 0
        while True:
            reply, tried = (yield call), tried + 1
            if isinstance(reply, httpx.Response) and reply.is_success:
                return self._read(call, reply)
            status = reply.status_code if isinstance(reply, httpx.Response) else None
            after = None if status is None else seconds_of(reply.headers.get("Retry-After"))
            wait = self._retries.wait(tried, after)
            if wait is None or not self._retries.allowed(call.repeat, status, unsent=isinstance(reply, UNSENT)):
                raise self._failed(reply, after, tried)
            yield wait

    def _read(self, call: Call[Answered], reply: httpx.Response) -> Answered:
        try:
            return call.read(reply.json())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Unavailable(f"what answers at {self.url} is no service of this kind; check the address") from None

    def _failed(self, reply: httpx.Response | httpx.RequestError, after: float | None, tried: int) -> SteadfaceError:
        if isinstance(reply, httpx.RequestError):
            why = str(reply) or type(reply).__name__
            return Unavailable(f"{self.url} does not answer ({why}; {tried} tries); check the address, or try later")
        try:
            told = reply.json()
        except ValueError:
            told = None
        return error_of(reply.status_code, told, after)


class Client(_Methods):
    """A client whose methods wait for the answer; a context manager, for several threads.

    Raises `InvalidInput` for what is no address of a service. Its methods raise what the library does, `Refused`
    where the key does not allow it, and `Unavailable` where the service cannot be reached.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        collection: str | None = None,
        timeout: float = 60.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, key, collection, retries)
        self._http = httpx.Client(**self._options(timeout), transport=transport)

    def send(self, call: Call[Answered]) -> Answered:
        """The answer to a call of `steadface.client.calls`."""
        talk, came = self._talk(call), None
        while True:
            try:
                todo = talk.send(came)
            except StopIteration as end:
                answer: Answered = end.value
                return answer
            came = self._do(todo)

    def _do(self, todo: float | Call[Any]) -> httpx.Response | httpx.RequestError | None:
        if isinstance(todo, float):
            time.sleep(todo)
            return None
        try:
            return self._http.request(**self._request(todo))
        except httpx.RequestError as error:
            return error

    def people(self, *, search: str = "", collection: str | None = None) -> Iterator[Person]:
        """Everybody enrolled whose name holds `search`, in that order, page by page."""
        after: int | None = 0
        while after is not None:
            page, after = self.people_page(after=after, limit=PAGE, search=search, collection=collection)
            yield from page

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(_Methods):
    """As `Client`, with methods that are awaited; `people` is gone through with `async for`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        collection: str | None = None,
        timeout: float = 60.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, key, collection, retries)
        self._http = httpx.AsyncClient(**self._options(timeout), transport=transport)

    async def send(self, call: Call[Answered]) -> Answered:
        """The answer to a call of `steadface.client.calls`."""
        talk, came = self._talk(call), None
        while True:
            try:
                todo = talk.send(came)
            except StopIteration as end:
                answer: Answered = end.value
                return answer
            came = await self._do(todo)

    async def _do(self, todo: float | Call[Any]) -> httpx.Response | httpx.RequestError | None:
        if isinstance(todo, float):
            await asyncio.sleep(todo)
            return None
        try:
            return await self._http.request(**self._request(todo))
        except httpx.RequestError as error:
            return error

    async def people(self, *, search: str = "", collection: str | None = None) -> AsyncIterator[Person]:
        """Everybody enrolled whose name holds `search`, in that order, page by page."""
        after: int | None = 0
        while after is not None:
            page, after = await self.people_page(after=after, limit=PAGE, search=search, collection=collection)
            for one in page:
                yield one

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _checked(url: str) -> str:
    """Without a slash at its end. Raises InvalidInput, which shows nothing of what may be a secret in it."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError:
        raise InvalidInput("the address of the service is no URL; give one as https://faces.example.org:8000") from None
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidInput("the address of the service holds more than a place; give the API key as key=")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"{url!r} is no address of a service; give one as https://faces.example.org:8000")
    return url.rstrip("/")
