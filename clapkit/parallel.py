"""Work done by other threads ahead of need, in the order of its items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Lock
from typing import TypeVar

import torch

Item, Result = TypeVar("Item"), TypeVar("Result")
_STARTING = Lock()
"""Held while workers change PyTorch's default."""


def done_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], pool: Executor, n_ahead: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Each item with its work; up to ``n_ahead`` later ones are taken and begun, which bounds the memory."""
    ahead: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        ahead.append((item, pool.submit(work, item)))
        if len(ahead) > n_ahead:
            yield ahead.popleft()
    while ahead:
        yield ahead.popleft()


@contextmanager
def sharing_threads(n_workers: int) -> Iterator[Executor]:
    """Workers side by side that have PyTorch's threads in equal parts.

    On many small tensors they are faster than one worker with all threads, which mostly wait for one another.
    """
    pool, started = ThreadPoolExecutor(n_workers), Barrier(n_workers + 1)

    def start(n_threads: int) -> None:
        torch.set_num_threads(n_threads)
        torch.get_num_threads()  # from now on this thread keeps its number
        started.wait()

    with _STARTING:
        n_threads = torch.get_num_threads()
        for _ in range(n_workers):
            pool.submit(start, max(n_threads // n_workers, 1))
        started.wait()
        torch.set_num_threads(n_threads)  # a worker's setting is also the default of threads to come
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
