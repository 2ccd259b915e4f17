"""Work ahead of need comes back in order, and PyTorch keeps its threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import clapkit
from clapkit.models.inference import BATCH_S, encode_clips, encode_windows
from clapkit.parallel import done_ahead, sharing_threads


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_results_keep_the_order_of_their_items() -> None:
    last_one_began = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert last_one_began.wait(timeout=30)
        elif number == 3:
            last_one_began.set()
        return number * number

    with ThreadPoolExecutor(4) as pool:
        assert [(item, done.result()) for item, done in done_ahead(work, range(5), pool, 4)] == [
            (number, number * number) for number in range(5)
        ]


def test_only_so_many_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(1) as pool:
        done = done_ahead(str, items(), pool, 3)
        next(done)
        assert taken == [0, 1, 2, 3]


def test_workers_share_the_threads_and_give_them_back(four_threads: None) -> None:
    with sharing_threads(2) as pool:
        assert {each.result() for each in [pool.submit(torch.get_num_threads) for _ in range(4)]} == {2}
    assert torch.get_num_threads() == 4


def test_threads_born_meanwhile_have_all_of_them(four_threads: None) -> None:
    with sharing_threads(4), ThreadPoolExecutor(1) as other, sharing_threads(2) as inner:
        assert other.submit(torch.get_num_threads).result() == 4
        assert inner.submit(torch.get_num_threads).result() == 2
    assert torch.get_num_threads() == 4


def test_what_is_queued_is_dropped_after_an_error(four_threads: None) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 0:
            raise ZeroDivisionError
        time.sleep(0.05)
        done.append(number)

    with pytest.raises(ZeroDivisionError), sharing_threads(1) as pool:
        [future.result() for _, future in done_ahead(work, range(50), pool, 40)]
    assert len(done) <= 2


def test_threads_are_given_back_after_an_error(four_threads: None) -> None:
    with pytest.raises(ZeroDivisionError), sharing_threads(4) as pool:
        pool.submit(lambda: 1 / 0).result()
    assert torch.get_num_threads() == 4


def test_clips_encoded_side_by_side_are_those_encoded_one_by_one(four_threads: None) -> None:
    model = clapkit.load("base", device="cpu")
    audio = model.config.audio
    generator = np.random.default_rng(0)
    n_clips = 5 * round(BATCH_S["cpu"] / audio.window_s) + 3  # more batches than workers
    lengths = generator.integers(audio.sample_rate // 2, 3 * audio.sample_rate, n_clips)
    clips = [0.1 * generator.standard_normal((1, length)).astype(np.float32) for length in lengths]
    clips[7] = np.tile(clips[7], 9)  # several windows
    together = list(encode_clips(model.clap, clips))
    torch.set_num_threads(1)
    for ours, alone in zip(together, encode_clips(model.clap, clips), strict=True):
        np.testing.assert_allclose(ours.windows, alone.windows, atol=1e-6)
        np.testing.assert_array_equal(ours.start_s, alone.start_s)
    assert len(together[7].windows) > 1


def test_a_broken_window_is_an_error_also_side_by_side(four_threads: None) -> None:
    model = clapkit.load("base", device="cpu")
    n_samples = round(model.config.audio.window_s * model.config.audio.sample_rate)
    good = (np.zeros((1, n_samples), np.float32), n_samples)
    with pytest.raises(RuntimeError):
        list(encode_windows(model.clap, [good] * 35 + [(np.zeros((3, 5, 7), np.float32), 5)]))
    assert torch.get_num_threads() == 4
