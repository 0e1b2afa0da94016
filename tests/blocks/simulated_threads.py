"""Threads that take turns: one runs at a time, and a seed says which one is next. With it a simulated clock.

`World` stands in for the modules `threading` and `time` in all of `hiss.blocks`, as `SimulatedDisk` stands in for the
files. Each simulated thread is a real one that waits for its baton; it hands the baton on where it waits for something,
and now and then where it takes a lock or touches the disk. So every order of events that real threads could show can
come up, and comes up again for the same seed. Where nobody can go on and nothing is awaited, that is a deadlock, and
reported so.

`crash` ends the world: each thread that is waiting gets `Crashed` where it stands, and whatever it still tries raises
it again. All of it is called by simulated threads, but for `run`.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from hiss.blocks import catalog_database

EPOCH_NS = 1_700_000_000_000_000_000


class Crashed(BaseException):
    """The machine stopped under this thread. Not an `Exception`: nobody handles it."""


class Deadlock(AssertionError):
    """Every thread waits for another one."""


class Task:
    """One simulated thread."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.daemon = True
        self.done = False
        self.error: BaseException | None = None
        self.ready: Callable[[], bool] | None = None  # what it waits for; None: it can go on
        self.deadline: float | None = None
        self.baton = threading.Lock()
        self.baton.acquire()


class World:
    """The threads and the clock of one life of the machine."""

    def __init__(self, seed: int | str) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.dead = False
        self.over = False  # nobody runs any more; locks are open to whoever looks at what is left
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.switches = 0
        self.threading = SimpleNamespace(
            Thread=self._bound(Thread),
            Lock=self._bound(Lock),
            RLock=self._bound(RLock),
            Condition=self._bound(Condition),
            Event=self._bound(Event),
            Semaphore=self._bound(Semaphore),
            BoundedSemaphore=self._bound(Semaphore),
            local=threading.local,
            get_ident=lambda: id(self.current),
            current_thread=lambda: self.current,
        )
        self.time = SimpleNamespace(
            monotonic=self._tick,
            perf_counter=self._tick,
            time=lambda: EPOCH_NS / 1e9 + self._tick(),
            time_ns=self.time_ns,
            monotonic_ns=lambda: int(self._tick() * 1e9),
            sleep=lambda seconds: self.pause(lambda: False, seconds),
        )

    def _bound(self, kind: type) -> Callable[..., Any]:
        return lambda *args, **kwargs: kind(self, *args, **kwargs)

    def _tick(self) -> float:
        self.now += 1e-6
        return self.now

    def time_ns(self) -> int:
        return EPOCH_NS + int(self._tick() * 1e9)

    # ---- turns

    def run(self, main: Callable[[], None]) -> bool:
        """Run `main` and what it starts; whether the world came to its end in order rather than by `crash`.

        Raises what a thread raised, and `Deadlock`.
        """
        driver = self.current = Task(self, "main")
        self.tasks.append(driver)
        with self._installed():
            try:
                main()
                in_order = True
            except Crashed:
                in_order = False
            finally:
                self.dead = True
                driver.done = True
                for task in self.tasks:
                    while not task.done:
                        self.current = task
                        task.baton.release()
                        driver.baton.acquire()
        self.over = True
        for task in self.tasks:
            if task.error is not None:
                raise task.error
        return in_order

    def turn(self, chance: float = 1.0) -> None:
        """A place where another thread may go on first."""
        if self.dead:
            raise Crashed
        if len(self.tasks) > 1 and (chance == 1.0 or self.rng.random() < chance):
            self.pause()

    def pause(self, ready: Callable[[], bool] | None = None, timeout: float | None = None) -> bool:
        """Let others run until `ready()`; whether it was, before `timeout` simulated seconds were over."""
        if self.dead:
            raise Crashed
        me = self.current
        assert me is not None
        me.ready, me.deadline = ready, None if timeout is None else self.now + timeout
        following = self._choose()
        if following is not me:
            self.switches += 1
            self.current = following
            following.baton.release()
            me.baton.acquire()
        if self.dead:
            raise Crashed
        me.ready = me.deadline = None
        return ready is None or ready()

    def _choose(self) -> Task:
        self.now += 1e-5
        while True:
            able = [task for task in self.tasks if not task.done and self._can_go_on(task)]
            if able:
                return able[0] if len(able) == 1 else self.rng.choice(able)
            deadlines = [task.deadline for task in self.tasks if not task.done and task.deadline is not None]
            if not deadlines:
                waiting = ", ".join(task.name for task in self.tasks if not task.done)
                self.tasks[0].error = Deadlock(f"nobody can go on; {waiting} wait")
                self.crash()
            self.now = max(self.now, min(deadlines))

    def _can_go_on(self, task: Task) -> bool:
        return task.ready is None or (task.deadline is not None and task.deadline <= self.now) or task.ready()

    def crash(self) -> None:
        """Stop everything. Does not return."""
        self.dead = True
        raise Crashed

    def start(self, task: Task, body: Callable[[], None]) -> None:
        def run() -> None:
            task.baton.acquire()
            try:
                if not self.dead:
                    body()
            except Crashed:
                pass
            except BaseException as error:
                task.error = error
                self.dead = True
            task.done = True
            self._hand_on()

        self.tasks.append(task)
        threading.Thread(target=run, name=task.name, daemon=True).start()

    def _hand_on(self) -> None:
        """The current thread is over."""
        if not self.dead:
            try:
                self.current = self._choose()
            except Crashed:
                self.current = self.tasks[0]
        else:
            self.current = self.tasks[0]
        self.current.baton.release()

    @contextlib.contextmanager
    def _installed(self) -> Iterator[None]:
        """This world is what the storage's modules know as `threading`, `time` and `secrets`."""
        replaced = []
        for name, module in list(sys.modules.items()):
            if name.startswith("hiss.blocks"):
                for attribute, stand_in in (("threading", self.threading), ("time", self.time)):
                    if getattr(module, attribute, None) in (threading, time):
                        replaced.append((module, attribute, getattr(module, attribute)))
                        setattr(module, attribute, stand_in)
        secrets = catalog_database.secrets
        replaced.append((catalog_database, "secrets", secrets))
        catalog_database.secrets = SimpleNamespace(token_hex=lambda size: self.rng.randbytes(size).hex())  # type: ignore
        try:
            yield
        finally:
            for module, attribute, original in replaced:
                setattr(module, attribute, original)


class Thread(Task):
    def __init__(
        self,
        world: World,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: tuple = (),
        kwargs: dict | None = None,
        *,
        daemon: bool = True,
    ) -> None:
        super().__init__(world, name or f"thread-{len(world.tasks)}")
        self._body = lambda: target(*args, **(kwargs or {})) if target is not None else None

    def start(self) -> None:
        self.world.start(self, self._body)
        self.world.turn(0.5)

    def is_alive(self) -> bool:
        return not self.done

    def join(self, timeout: float | None = None) -> None:
        if not self.done:
            self.world.pause(lambda: self.done, timeout)


class Lock:
    """A lock that is not reentrant; any thread may release it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.owner: Task | None = None
        self.count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self.world.over:
            return True
        self.world.turn(0.05)
        if self._mine():
            self.count += 1
            return True
        if self.owner is not None and not blocking:
            return False
        limit = None if timeout < 0 else timeout
        if self.owner is not None and not self.world.pause(lambda: self.owner is None, limit):
            return False
        self.owner, self.count = self.world.current, 1
        return True

    def _mine(self) -> bool:
        return False

    def release(self) -> None:
        if self.world.dead or self.world.over:
            return
        assert self.count, "a lock was released that nobody holds"
        self.count -= 1
        if not self.count:
            self.owner = None

    def locked(self) -> bool:
        return self.owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    def _mine(self) -> bool:
        return self.owner is not None and self.owner is self.world.current


class Condition:
    def __init__(self, world: World, lock: Lock | None = None) -> None:
        self.world = world
        self._lock = lock if lock is not None else RLock(world)
        self.acquire, self.release = self._lock.acquire, self._lock.release
        self._waiters: list[Event] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        assert self._lock.owner is self.world.current, "wait without the lock"
        ticket, count = Event(self.world), self._lock.count
        self._waiters.append(ticket)
        self._lock.owner, self._lock.count = None, 0
        told = self.world.pause(ticket.is_set, timeout)
        if not told:
            self._waiters.remove(ticket)
        if self._lock.owner is not None:
            self.world.pause(lambda: self._lock.owner is None)
        self._lock.owner, self._lock.count = self.world.current, count
        return told

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        deadline = None if timeout is None else self.world.now + timeout
        while not (found := predicate()):
            left = None if deadline is None else deadline - self.world.now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return found

    def notify(self, count: int = 1) -> None:
        for ticket in self._waiters[:count]:
            ticket.set()
        del self._waiters[:count]

    def notify_all(self) -> None:
        self.notify(len(self._waiters))


class Event:
    def __init__(self, world: World) -> None:
        self.world = world
        self._set = False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        return self._set or self.world.pause(lambda: self._set, timeout)


class Semaphore:
    def __init__(self, world: World, value: int = 1) -> None:
        self.world = world
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        if not self._value and (not blocking or not self.world.pause(lambda: self._value > 0, timeout)):
            return False
        self._value -= 1
        return True

    def release(self, count: int = 1) -> None:
        self._value += count

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()
