"""Batches: even, complete, in an order that the seed fixes, from memory or through a loader."""

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from chartae.training.batches import InMemoryBatches


def make(size, batch_size):
    return InMemoryBatches({"x": torch.arange(size)[:, None].float()}, batch_size)


def numbers(batches):
    return [batch["x"].flatten().int().tolist() for batch in batches]


def flat(lists):
    return list(chain.from_iterable(lists))


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 5))
def test_an_epoch_is_every_sample_once_in_even_batches(size, batch_size, epoch):
    batches = make(size, batch_size)
    pieces = numbers(batches.epoch(0, epoch))
    assert len(pieces) == batches.num_batches == -(-size // batch_size)
    assert sorted(flat(pieces)) == list(range(size))
    sizes = {len(piece) for piece in pieces}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert flat(numbers(batches.in_order())) == list(range(size))


def test_the_order_depends_on_the_seed_and_the_epoch_only():
    batches = make(50, 7)
    assert numbers(batches.epoch(0, 1)) == numbers(batches.epoch(0, 1))
    assert numbers(batches.epoch(0, 1)) != numbers(batches.epoch(0, 2))
    assert numbers(batches.epoch(0, 1)) != numbers(batches.epoch(1, 1))


@given(st.integers(0, 8))
def test_an_epoch_continues_where_it_stopped(start):
    batches = make(50, 7)
    assert numbers(batches.epoch(0, 1, start)) == numbers(batches.epoch(0, 1))[start:]


def test_one_batch_is_not_copied_and_not_given_twice():
    batches = make(5, 7)
    (batch,) = batches.epoch(0, 0)
    assert batch["x"].data_ptr() == batches.tensors["x"].data_ptr()
    assert list(batches.epoch(0, 0, start=1)) == []


@given(st.integers(4, 40), st.integers(1, 9), st.integers(2, 4))
def test_processes_divide_the_steps_of_one_with_larger_batches(size, batch_size, world):
    alone, shares, validation = make(size, batch_size * world), [], {}
    for rank in range(world):
        batches = make(size, batch_size)
        batches.place(torch.device("cpu"), rank, world)
        shares.append(numbers(batches.epoch(0, 0)))
        assert flat(numbers(batches.in_order())) == list(range(size))
        own = {
            number: batch["x"].flatten().int().tolist()
            for number, batch in batches.share_in_order()
        }
        assert not own.keys() & validation.keys()
        validation |= own
    assert flat(validation[number] for number in sorted(validation)) == list(range(size))
    assert {len(share) for share in shares} == {batches.num_batches}
    steps = [flat(share[step] for share in shares) for step in range(batches.num_batches)]
    assert list(map(len, steps)) == [batches.step_size(step) for step in range(len(steps))]
    assert min(len(batch) for share in shares for batch in share) >= 1
    if batch_size > 1:  # otherwise, a sample for each process is not always possible
        # One batch of all samples keeps their order.
        assert list(map(sorted, steps)) == list(map(sorted, numbers(alone.epoch(0, 0))))
        assert max(len(batch) for share in shares for batch in share) <= batch_size


class Rows(Dataset):
    """The same rows in the three forms that a dataset may give them."""

    def __init__(self, x, form):
        self.x, self.form = x, form

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x, label = self.x[index], torch.tensor(0)
        return {"x": x, "pair": (x, label), "mapping": {"x": x, "y": label, "id": index}}[self.form]


@pytest.mark.parametrize("form", ["x", "pair", "mapping"])
def test_a_dataset_trains_as_the_tensor_it_holds(make_vae, fit, data, form):
    model, other = make_vae("RHVAE"), make_vae("RHVAE")
    history = fit(model, Rows(data, form), Rows(data, form), epochs=2, batch_size=8)
    expected = fit(other, data, data, epochs=2, batch_size=8)
    assert history.train == expected.train
    assert history.validation == expected.validation
    for name, tensor in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_workers_change_nothing(make_vae, fit, data):
    model, other = make_vae(), make_vae()
    fit(model, Rows(data, "pair"), epochs=2, batch_size=8, num_workers=2)
    fit(other, data, epochs=2, batch_size=8)
    for name, tensor in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
