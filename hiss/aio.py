"""hiss for asyncio: the same objects, whose calls are awaited while threads do the work.

    async with hiss.aio.connect("localhost:5001") as buf:
        scan = await buf.collection("beamtime42/scan7")
        async with scan.create_stream("proj", dtype="uint16", shape=(2160, 2560)) as s:
            await s.append(frame)
        async for block in (await buf.stream("beamtime42/scan7/proj")).follow():
            ...

There is one engine, the synchronous one, and no second list of its methods here: a *call* made through a wrapper is
awaited, iterated with `async for`, or entered with `async with`; so is every property, for some of them ask the server.

Threads: a writer and an iterator have one of their own, so that their calls run one after another, in the order in
which they were made, and none that waits holds up another; everything else shares `limits.AIO_THREADS`. They end with
the objects. Back-pressure is kept: `await s.append(...)` comes back when `append` does. Cancelling a call that has not
begun undoes it; one that has begun runs to its end in its thread, its result is dropped, and the next call of that
writer comes after it. Of an iterator nothing is dropped: what was on its way when a wait was cancelled is what the next
one gets. All wrappers are for one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

import hiss
from hiss import limits
from hiss.client import Buffer, Collection
from hiss.consumer import Share, SharedBlock
from hiss.errors import HissError
from hiss.reader import Join, Stream
from hiss.workflow import Meow
from hiss.writer import StreamWriter

_END: Final = object()
_WRAPPED: Final = (Buffer, Collection, Stream, StreamWriter, Share, SharedBlock, Join)

Stop = Callable[[], Any]  # ends an iterator from another thread; does not block


def connect(address: str | None = None, token: str | None = None, **options: Any) -> Call:
    """As `hiss.connect`: `async with hiss.aio.connect(...) as buf`, or `buf = await hiss.aio.connect(...)`."""
    return _first(lambda: hiss.connect(address, token, **options))


def open(path: str | Path, **options: Any) -> Call:
    """As `hiss.open`."""
    return _first(lambda: hiss.open(path, **options))


def _first(make: Callable[[], Buffer]) -> Call:
    pool = ThreadPoolExecutor(limits.AIO_THREADS, thread_name_prefix="hiss aio")
    return Call(make, pool, pool)


class Call:
    """A call that was made and not begun: `await` it for its result, or use it as what the result would be, in
    `async for` and `async with`."""

    def __init__(
        self,
        function: Callable[[], Any],
        thread: ThreadPoolExecutor,
        pool: ThreadPoolExecutor,
        stop: Stop | None = None,
    ) -> None:
        self._function = function
        self._thread = thread
        self._pool = pool
        self._stop = stop
        self._result: Any = None

    async def _run(self) -> Any:
        future = self._thread.submit(self._function)
        try:
            found = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(_let_go)
            raise
        return _wrap(found, self._pool, self._stop)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._run().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._result is None:
            self._result = aiter(await self._run())
        return await anext(self._result)

    async def __aenter__(self) -> Any:
        self._result = await self._run()
        return await self._result.__aenter__()

    async def __aexit__(self, *why: Any) -> Any:
        return await self._result.__aexit__(*why)


class Async:
    """One of hiss's objects, which is `unwrapped`; see the module."""

    def __init__(self, unwrapped: Any, pool: ThreadPoolExecutor) -> None:
        self.unwrapped = unwrapped
        self._pool = pool
        self._thread = ThreadPoolExecutor(1, "hiss aio") if isinstance(unwrapped, StreamWriter) else pool
        self._blocks: Blocks | None = None

    def __repr__(self) -> str:
        return f"<Async {self.unwrapped!r}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        thing = self.unwrapped
        if isinstance(getattr(type(thing), name, None), property):
            return self._call(lambda: getattr(thing, name))
        found = getattr(thing, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Call:
            stop = thing.stop if isinstance(thing, Share) else None
            if name == "follow":  # it can wait without end
                stop = options.setdefault("stop", threading.Event()).set
            return self._call(lambda: found(*args, **options), stop)

        return call

    def __getitem__(self, key: Any) -> Call:
        return self._call(lambda: self.unwrapped[key])

    def _call(self, function: Callable[[], Any], stop: Stop | None = None) -> Call:
        return Call(function, self._thread, self._pool, stop)

    def __aiter__(self) -> Blocks:
        if self._blocks is None:
            stop = self.unwrapped.stop if isinstance(self.unwrapped, Share) else None
            self._blocks = Blocks(iter(self.unwrapped), self._pool, stop)
        return self._blocks

    async def __anext__(self) -> Any:
        return await anext(aiter(self))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *why: Any) -> Any:
        return await self._call(lambda: self.unwrapped.__exit__(*why))


class Blocks:
    """An iterator in a thread of its own, one step at a time. `aclose` ends it; so does forgetting it."""

    def __init__(self, iterator: Iterator[Any], pool: ThreadPoolExecutor, stop: Stop | None) -> None:
        self._iterator = iterator
        self._pool = pool
        self._stop = stop
        self._thread = ThreadPoolExecutor(1, "hiss aio")
        self._step: Future[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._step is None:
            self._step = self._thread.submit(next, self._iterator, _END)
        waited = asyncio.wrap_future(self._step)
        try:
            await asyncio.wait([waited])  # a wait that is cancelled leaves the step for the next one
            found = waited.result()
        finally:
            if waited.done():
                self._step = None
        if found is _END:
            self._thread.shutdown(wait=False)
            raise StopAsyncIteration
        return _wrap(found, self._pool)

    async def aclose(self) -> None:
        """End it, and wait until its thread has let go."""
        if self._stop is not None:
            self._stop()
        if self._step is not None:
            await asyncio.wait([asyncio.wrap_future(self._step)])
        close = getattr(self._iterator, "close", None)
        if close is not None:
            await asyncio.wrap_future(self._thread.submit(close))
        self._thread.shutdown(wait=False)

    def __del__(self) -> None:
        if self._stop is not None:
            self._stop()
        self._thread.shutdown(wait=False)


def _wrap(found: Any, pool: ThreadPoolExecutor, stop: Stop | None = None) -> Any:
    if isinstance(found, _WRAPPED) or Meow in type(found).__mro__:
        return Async(found, pool)
    if isinstance(found, list):
        return [_wrap(each, pool) for each in found]
    if isinstance(found, Iterator):
        return Blocks(found, pool, stop)
    return found


def _let_go(future: Future[Any]) -> None:
    """Of a call that nobody waits for any more: what it opened is closed; a stream stays open, for `resume`."""
    if future.cancelled() or future.exception() is not None:
        return
    found = future.result()
    with contextlib.suppress(HissError):
        if isinstance(found, StreamWriter):
            found.detach()
        elif isinstance(found, Buffer | Share):
            found.close()
