# SPDX-License-Identifier: MIT
"""What the package uses of its C part. Nothing here is for users but the class Future."""
import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")

version: str

class Core:
    desk: int
    def __init__(self, workers: int) -> None: ...
    def start(
        self,
        setup: dict[str, Any],
        argv: list[str] | None,
        env: list[str] | None,
        boot_fd: int = -1,
        tasks_max: int = 0,
        memory: int = 0,
        cpu_ns: int = 0,
    ) -> None: ...
    def submit(
        self,
        fn: Callable[..., _T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        timeout: float | None,
        retries: int,
    ) -> Future[_T]: ...
    def map(
        self,
        fn: Callable[..., _T],
        iterables: tuple[Any, ...],
        star: bool,
        chunksize: int,
        timeout: float | None,
        retries: int,
        unordered: bool,
    ) -> Map[_T]: ...
    def drive(self) -> None: ...
    def fail(self, exc: BaseException) -> None: ...
    def close(self, cancel: bool, kill: bool) -> None: ...
    def join(self, timeout: float | None) -> bool: ...
    def worker_ids(self) -> list[int]: ...
    def stats(self) -> dict[str, int]: ...
    def pending(self) -> int: ...

class Future(concurrent.futures.Future[_T]):
    def cancel(self, force: bool = False) -> bool: ...

class Map(Iterator[_T]):
    done: int
    def __next__(self) -> _T: ...
    def __length_hint__(self) -> int: ...
    def close(self) -> None: ...

def cpu_count() -> int: ...
def set_title(text: str) -> None: ...
def serve(ticket: str, setup: dict[str, Any]) -> None: ...
