# SPDX-License-Identifier: MIT
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Literal, SupportsIndex, TypeVar

from yoke import futures as futures
from yoke._yoke import Future

__all__ = [
    "Pool",
    "PoolBroken",
    "PoolClosed",
    "TaskTimeout",
    "TransferError",
    "WorkerDied",
    "futures",
]
__version__: str

_T = TypeVar("_T")

class Pool(Executor):
    kind: str
    workers: int
    def __init__(
        self,
        kind: Literal["processes", "serial"] = "processes",
        workers: SupportsIndex | None = None,
        *,
        start: Literal["fresh", "fork"] = "fresh",
        preload: Iterable[str] = (),
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        tasks_max: SupportsIndex | None = None,
        memory: SupportsIndex | None = None,
        cpu_time: float | None = None,
        threads_per_worker: SupportsIndex | None = None,
    ) -> None: ...
    def submit(  # type: ignore[override]
        self,
        fn: Callable[..., _T],
        /,
        *args: Any,
        timeout: float | None = None,
        retries: int = 0,
        **kwargs: Any,
    ) -> Future[_T]: ...
    def map(  # type: ignore[override]
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        retries: SupportsIndex = 0,
        chunksize: SupportsIndex | None = None,
        unordered: bool = False,
        progress: bool = False,
    ) -> Iterator[_T]: ...
    def starmap(
        self,
        fn: Callable[..., _T],
        iterable: Iterable[Iterable[Any]],
        *,
        timeout: float | None = None,
        retries: SupportsIndex = 0,
        chunksize: SupportsIndex | None = None,
        unordered: bool = False,
        progress: bool = False,
    ) -> Iterator[_T]: ...
    async def run(
        self,
        fn: Callable[..., _T],
        /,
        *args: Any,
        timeout: float | None = None,
        retries: int = 0,
        **kwargs: Any,
    ) -> _T: ...
    def worker_ids(self) -> list[int]: ...
    def stats(self) -> dict[str, int]: ...
    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, kill: bool = False
    ) -> None: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]: ...

class WorkerDied(BrokenProcessPool):
    signal: int | None
    exit_code: int | None
    task: str | None
    traceback: str | None
    def __init__(
        self,
        *args: object,
        signal: int | None = None,
        exit_code: int | None = None,
        task: str | None = None,
        traceback: str | None = None,
    ) -> None: ...

class TaskTimeout(TimeoutError):
    task: str | None
    def __init__(self, *args: object, task: str | None = None) -> None: ...

class TransferError(BrokenProcessPool): ...
class PoolBroken(BrokenProcessPool): ...
class PoolClosed(RuntimeError): ...
