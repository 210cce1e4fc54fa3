"""The VAE of single visits as a model of sequences."""

import pytest
import torch
from torch import nn

import chartae
from chartae.data import Sequences
from chartae.longitudinal import VisitVAE

D = torch.float64


def sequences() -> Sequences:
    x = torch.rand(6, 4, 3, dtype=D, generator=torch.Generator().manual_seed(0))
    data = Sequences(x, times=torch.arange(4.0, dtype=D), dtype=D)
    return data.hidden(visits=0.4, features=0.2, seed=0)


def linear() -> chartae.VAE:
    """A VAE with a linear decoder, whose posterior is its prior."""
    torch.manual_seed(0)
    model = chartae.VAE(
        (3,),
        2,
        encoder=nn.Flatten(),
        decoder=nn.Linear(2, 3),
        likelihood={"name": "gaussian", "scale": 0.5},
    ).double()
    with torch.no_grad():
        model.posterior_head.linear.weight.zero_()
        model.posterior_head.linear.bias.copy_(torch.tensor([0.0, 0.0, 0.5413, 0.5413]))
    return model


def test_the_joint_likelihood_is_the_sum_of_those_of_visits() -> None:
    inner, data = linear(), sequences()
    model = VisitVAE((3,), 2, model=inner)
    weight, bias = inner.decoder.weight.detach(), inner.decoder.bias.detach()
    covariance = weight @ weight.mT + 0.25 * torch.eye(3, dtype=D)
    found = model.log_likelihood(data, 20000)
    for row in range(len(data)):
        total = 0.0
        for visit in range(4):
            seen = data.mask[row, visit]
            if seen.any():
                law = torch.distributions.MultivariateNormal(bias[seen], covariance[seen][:, seen])
                total = total + law.log_prob(data.x[row, visit, seen])
        assert abs(float(found.log_prob[row] - total)) < 0.05
    assert torch.equal(found.num_features, data.mask.sum((1, 2)))


def test_the_loss_is_that_of_the_visits_summed() -> None:
    inner, data = linear(), sequences()
    model = VisitVAE((3,), 2, model=inner)
    torch.manual_seed(0)
    found = model.loss(**data.tensors).objectives["model"]
    torch.manual_seed(0)
    seen = data.observed
    each = inner.loss(data.x[seen], mask=data.mask[seen]).objectives["model"]
    torch.testing.assert_close(found, each * seen.sum() / len(data))


def test_other_times_have_the_prior_and_visits_their_posterior() -> None:
    inner = chartae.CVAE((3,), 2, conditions=2, learned_prior=True).double()
    with torch.no_grad():
        inner.prior_head.linear.weight[:2] = torch.tensor([[3.0, -3.0], [0.0, 0.0]])
    model = VisitVAE((3,), 2, model=inner)
    x = torch.rand(2, 3, 3, dtype=D)
    data = Sequences(x, times=torch.arange(3.0), covariates=[0, 1], dtype=D).first(1)
    visits = model.visits(**data.tensors)
    latents, _ = model.infer(visits, 4000, "set")
    owner, times = torch.tensor([0, 0, 1, 1]), torch.tensor([0.0, 2.0, 0.0, 2.0], dtype=D)
    z = model.path(latents, owner, times, visits.y).detach()
    assert torch.equal(z[:, [0, 2]], latents[:, :, 0, :2])
    mean = inner.prior(torch.tensor([0, 1])).mean.detach()
    assert float((z[:, [1, 3]].mean(0) - mean).abs().max()) < 0.1


@pytest.mark.parametrize("how", ["best", "resample"])
@torch.no_grad()
def test_visits_are_chosen_alone(how: str) -> None:
    model, data = VisitVAE((3,), 2, model=linear()), sequences()
    visits = model.visits(**data.tensors)
    torch.manual_seed(0)
    latents, fit, sizes = model.draw_latents(visits, 2000, "set", how)
    torch.testing.assert_close(fit, model.log_fit(latents, visits))
    z = latents[:, visits.owner, visits.rank, :2]
    each = model.likelihood(z).log_prob(visits.x, visits.mask)
    if how == "best":
        assert torch.equal(each.argmax(0), torch.zeros(len(visits), dtype=torch.long))
        assert sizes is None
        return
    assert float(sizes.min()) > 20.0
    inner = model.model
    for place in range(len(visits)):  # the posterior of a linear visit is known
        seen = visits.mask[place]
        weight = inner.decoder.weight[seen].detach()
        precision = torch.eye(2, dtype=D) + weight.mT @ weight / 0.25
        rest = visits.x[place, seen] - inner.decoder.bias[seen].detach()
        mean = torch.linalg.solve(precision, weight.mT @ rest / 0.25)
        assert float((z[:, place].mean(0) - mean).abs().max()) < 0.2


@pytest.mark.parametrize("name", ["factorvae", "hvae", "iwae", "infovae", "rhvae", "iafvae"])
def test_any_variational_model(name: str, tmp_path) -> None:
    data = sequences().to(dtype=torch.float32)
    model = VisitVAE((3,), 2, model=name)
    chartae.fit(model, data, epochs=2, batch_size=3, seed=0, progress=False)
    assert bool(model.log_likelihood(data, 5).log_prob.isfinite().all())
    model.save_pretrained(tmp_path)
    copy = chartae.load(tmp_path)
    first, second = (m.log_likelihood(data, 5).log_prob for m in (model, copy))
    assert torch.equal(first, second)


def test_a_model_that_exists_is_saved_with_its_options(tmp_path) -> None:
    inner = chartae.VAMP((3,), 2, num_pseudo_inputs=7).double()
    model = VisitVAE((3,), 2, model=inner)
    model.save_pretrained(tmp_path)
    copy = chartae.load(tmp_path)
    assert copy.model.num_pseudo_inputs == 7
    assert torch.equal(copy.model.raw_pseudo_inputs, inner.raw_pseudo_inputs)
