"""hiss.aio: the same objects awaited, with back-pressure, and cancelled at any moment without harm."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss.aio
from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.errors import BlockMissing, StreamFinal
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.model import StreamState
from hiss.node import Node
from hiss.testing.conformance import frames, stalled
from hiss.testing.waiting import wait_for
from hiss.transport import GrpcServer

LIMIT_S = 60.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str]]:
    options = StorageOptions(arena_bytes=16 * MiB, segment_bytes=16 * MiB)
    node = Node(tmp_path / "data", options, backend="numpy")
    tokens = Access.of_directory(node.directory)
    server = GrpcServer(
        ["127.0.0.1:0"],
        store_for=lambda caller: LocalStore(node, caller),
        authenticate=lambda token, peer: tokens.authenticate(token, 0, peer),
        lanes=[f"unix:{tmp_path / 'lane.sock'}"],
    )
    server.start()
    yield server.addresses[0], tokens.owner_token
    server.stop(5.0)
    node.close()


@asynccontextmanager
async def buffer_of(served: tuple[str, str]) -> AsyncIterator[Any]:
    async with hiss.aio.connect(*served) as buf:
        yield buf


def run(story: Any) -> None:
    async def within() -> None:
        await asyncio.wait_for(story, LIMIT_S)

    before = set(threading.enumerate())
    asyncio.run(within())
    gc.collect()
    wait_for(lambda: not [each for each in set(threading.enumerate()) - before if each.name.startswith("hiss aio")])


def test_what_is_awaited_is_what_is_called(served: tuple[str, str]) -> None:
    async def story() -> None:
        data = frames(20)
        async with buffer_of(served) as buf:
            scan = await buf.collection("scan", attrs={"sample": "foam"})
            async with scan.create_stream("s", dtype="uint16", shape=(4, 6), columns={"n": "i4"}) as s:
                assert await s.append(data[0], n=0) == 0
                await s.extend(data[1:], n=np.arange(1, 20))
                await s.flush()
                assert s.next_index == 20
                assert await s.acknowledged == 20
            stream = await buf["scan/s"]
            assert (await stream.info).state is StreamState.SEALED
            assert await stream.shape == (20, 4, 6)
            assert np.array_equal(await stream.read(), data)
            assert np.array_equal(await stream[3], data[3])
            assert [block.index async for block in stream] == list(range(20))
            assert [await each.path for each in await buf.collections()] == ["scan"]
            with pytest.raises(BlockMissing):
                await stream[30]
            with pytest.raises(AttributeError):
                await stream.no_such_thing
            one, two = await asyncio.gather(stream.block(1), stream.block(2))
            assert (one.index, two.columns["n"]) == (1, 2)
            assert "Async" in repr(stream)

    run(story())


def test_embedded_and_an_exception_aborts(tmp_path: Path) -> None:
    async def story() -> None:
        async with hiss.aio.open(tmp_path / "data", arena_bytes=16 * MiB, segment_bytes=16 * MiB) as buf:
            scan = await buf.collection("c")
            with pytest.raises(ValueError, match="beam"):
                await broken(scan)
            info = await (await scan["s"]).info
            assert (info.state, info.abort_reason) == (StreamState.ABORTED, "ValueError: the beam is off")

    async def broken(scan: Any) -> None:
        async with scan.create_stream("s", dtype="u1", shape=(1,)) as s:
            await s.append(np.zeros(1, "u1"))
            raise ValueError("the beam is off")

    run(story())


def test_followers_and_members_beside_their_producer(served: tuple[str, str]) -> None:
    """All in one loop: none that waits holds up another, however many there are."""

    async def follow(buf: Any) -> list[int]:
        return [block.index async for block in (await buf["c/s"]).follow()]

    async def member(buf: Any) -> list[int]:
        mine = []
        async with (await buf["c/s"]).share("g") as share:
            async for block in share:
                mine.append(block.index)
                assert await block.done()
        return mine

    async def batches(buf: Any) -> list[int]:
        share = await (await buf["c/s"]).share("h", blocks=7)
        found = []
        async for batch in share.batches():
            found += [block.index for block in batch]
            assert await share.done(*[block.unwrapped for block in batch]) == []
        return found

    async def story() -> None:
        async with buffer_of(served) as buf:
            scan = await buf.collection("c")
            s = await scan.create_stream("s", dtype="u1", shape=(1,))
            followers = [asyncio.create_task(follow(buf)) for _ in range(20)]
            members = [asyncio.create_task(member(buf)) for _ in range(3)]
            batched = asyncio.create_task(batches(buf))
            for index in range(40):
                await s.append(np.array([index], "u1"))
                if index % 10 == 0:
                    await s.flush()
            await s.close()
            assert await asyncio.gather(*followers) == [list(range(40))] * 20
            assert sorted(index for mine in await asyncio.gather(*members) for index in mine) == list(range(40))
            assert await batched == list(range(40))

    run(story())


def test_append_waits_for_room_and_may_be_cancelled(served: tuple[str, str]) -> None:
    async def story() -> None:
        async with buffer_of(served) as buf:
            scan = await buf.collection("c")
            s = await scan.create_stream("s", dtype="u1", shape=(MiB,))
            with stalled(s.unwrapped):
                full = asyncio.create_task(fill(s))
                waiting = threading.Event()
                wait = s.unwrapped._cond.wait_for
                s.unwrapped._cond.wait_for = lambda *args: (waiting.set(), wait(*args))[1]
                await asyncio.to_thread(waiting.wait, LIMIT_S)
                assert not full.done(), "back-pressure reaches the task that awaits"
                assert 0 < s.next_index < 16
                queued = asyncio.create_task(never_begun(s))
                await asyncio.sleep(0)
                for task in (queued, full):
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                begun = s.next_index
            await s.flush()
            assert s.next_index == begun + 1, "the one that had begun was appended, the one behind it was not"
            await s.append(np.zeros(MiB, "u1"))
            await s.close()
            assert len(await (await buf["c/s"]).index) == begun + 2
            with pytest.raises(StreamFinal):
                await s.append(np.zeros(MiB, "u1"))

    async def fill(s: Any) -> None:
        while True:
            await s.append(np.zeros(MiB, "u1"))

    async def never_begun(s: Any) -> None:
        await s.append(np.ones(MiB, "u1"))

    run(story())


@pytest.mark.parametrize("kind", ["follow", "share"])
def test_a_wait_for_a_block_that_is_cancelled_loses_none(served: tuple[str, str], kind: str) -> None:
    async def story() -> None:
        async with buffer_of(served) as buf:
            s = await (await buf.collection("c")).create_stream("s", dtype="u1", shape=(1,))
            stream = await buf["c/s"]
            blocks = aiter(await (stream.follow() if kind == "follow" else stream.share("g")))
            for index in range(2):
                for _ in range(2):
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(anext(blocks), 0.05)
                await s.append(np.array([index], "u1"))
                await s.flush()
                block = await anext(blocks)
                assert block.index == index
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(blocks), 0.05)
            await blocks.aclose()
            forgotten = await stream.follow(start=100)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(forgotten), 0.05)
            await s.close()

    run(story())


def test_what_a_cancelled_call_opened_is_let_go(served: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with buffer_of(served) as buf:
            scan = await buf.collection("c")
            began, go = threading.Event(), threading.Event()
            real = scan.unwrapped._store.open_append
            monkeypatch.setattr(
                scan.unwrapped._store, "open_append", lambda *args: (began.set(), go.wait(LIMIT_S), real(*args))[2]
            )
            task = asyncio.create_task(create(scan))
            await asyncio.to_thread(began.wait, LIMIT_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            await asyncio.to_thread(wait_for, lambda: not writers())
            async with scan.create_stream("s", dtype="u1", shape=(1,), resume=True) as s:
                await s.append(np.zeros(1, "u1"))
            assert (await (await buf["c/s"]).info).state is StreamState.SEALED

    async def create(scan: Any) -> Any:
        return await scan.create_stream("s", dtype="u1", shape=(1,))

    def writers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("writer")]

    run(story())
