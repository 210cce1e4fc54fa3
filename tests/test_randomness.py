import multiprocessing
import threading

import numpy as np
import pytest
import torch

from chartae.errors import ConfigurationError
from chartae.randomness import (
    derive_seed,
    make_generator,
    resolve_seed,
    seed_generators,
    seeded,
)


def test_streams_are_stable_across_versions_and_machines():
    """A change here would change the result of every seed."""
    assert derive_seed(0, "order", 1) == 7021862330116196507


def test_streams_differ_and_are_seeds():
    seeds = {
        derive_seed(seed, name, number)
        for seed in range(20)
        for name in ("order", "noise")
        for number in range(20)
    }
    assert len(seeds) == 800
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_one_stream_agree_and_of_two_do_not_correlate():
    one, again = (torch.randn(10_000, generator=make_generator(7, "a")) for _ in range(2))
    other = torch.randn(10_000, generator=make_generator(7, "b"))
    assert torch.equal(one, again)
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.05


def test_seeded_draws_alike_and_leaves_the_state():
    before = torch.get_rng_state()
    draws = []
    for stream in ("a", "a", "b"):
        with seeded(3, stream):
            draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_leaves_the_state_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(3):
        1 / 0  # noqa: B018
    assert torch.equal(torch.get_rng_state(), before)


def test_seeding_does_not_queue_work_for_accelerators_that_are_not_there():
    """As `torch.manual_seed` does: a list of call stacks that grows with every call."""
    queued = torch.cuda._queued_calls
    with seeded(0):
        length = len(queued)
        for number in range(5):
            seed_generators(number)
    assert len(queued) == length


def test_resolve_seed():
    assert resolve_seed(5) == 5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = resolve_seed(None)
        assert resolve_seed(None) != first
        torch.manual_seed(0)
        assert resolve_seed(None) == first
    for wrong in (-1, 1.5, "a", True):
        with pytest.raises(ConfigurationError, match="seed="):
            resolve_seed(wrong)


def test_a_seed_is_its_value_whatever_its_type():
    assert derive_seed(np.int64(7), "noise") == derive_seed(7, "noise")


@pytest.fixture
def busy_thread():
    """Another thread inside a block of `seeded`, for as long as the test runs."""
    inside, over = threading.Event(), threading.Event()

    def work():
        with seeded(0):
            inside.set()
            over.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(60)
    yield over
    over.set()
    thread.join()


def test_blocks_of_threads_take_turns(busy_thread):
    entered = threading.Event()

    def enter():
        with seeded(1):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.05)
    busy_thread.set()
    assert entered.wait(60)
    thread.join()


def test_blocks_of_one_thread_nest():
    with seeded(0):
        expected = torch.rand(2)
    with seeded(0):
        with seeded(1):
            torch.rand(5)
        assert torch.equal(torch.rand(2), expected)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_threads_that_it_has_not(busy_thread):
    def enter():
        with seeded(1):
            pass

    process = multiprocessing.get_context("fork").Process(target=enter)
    process.start()
    process.join(20)
    ended = process.exitcode
    process.kill()
    process.join()
    assert ended == 0
