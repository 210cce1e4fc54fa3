"""Tables of mixed columns with missing cells, as follow-ups."""

import torch

import chartae
from chartae.data import Sequences
from chartae.longitudinal import FlowVAE

COLUMNS = [["gaussian", 2], ["bernoulli", 1], ["categorical", 3]]


def table(count: int = 60, visits: int = 4) -> Sequences:
    """Two scores that rise, a sign of the first, and a class that follows the second."""
    generator = torch.Generator().manual_seed(0)
    start, slope = torch.randn(2, count, 1, 2, generator=generator)
    times = torch.rand(count, visits, generator=generator).cumsum(1)
    scores = start + slope.abs() * times[..., None]
    sign = (scores[..., :1] > 0.5).float()
    kind = torch.bucketize(scores[..., 1].contiguous(), torch.tensor([0.0, 1.0]))
    x = torch.cat([scores, sign, torch.nn.functional.one_hot(kind, 3).float()], -1)
    cells = torch.rand(count, visits, 4, generator=generator) > 0.2
    mask = cells[..., [0, 1, 2, 3, 3, 3]]  # a class is observed or not as a whole
    mask[..., 0] |= ~mask.any(-1)  # some cell of each visit is observed
    return Sequences(torch.where(mask, x, torch.nan), times=times, mask=mask)


def test_a_mixed_table_is_learned_and_completed() -> None:
    data = table()
    train, test = data.split((0.8, 0.2), seed=0)
    model = FlowVAE((6,), 3, likelihood={"name": "mixed", "columns": COLUMNS})
    history = chartae.fit(
        model, train, test, epochs=40, learning_rate=3e-3, batch_size=16, seed=0, progress=False
    )
    assert history.validation["loss"][-1] < history.validation["loss"][0] - 1.0
    draws = model.impute(test, how="resample", num_draws=8)
    assert set(draws.values[..., 2].unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(draws.values[..., 3:].sum(-1), torch.ones(draws.values.shape[:3]))
    assert set(draws.values[..., 3:].unique().tolist()) <= {0.0, 1.0}
    completed = torch.as_tensor(draws.completed())
    torch.testing.assert_close(completed[test.known], test.x[test.known])
    assert bool(completed.isfinite().all())
    assert bool(model.log_likelihood(test).log_prob.isfinite().all())
