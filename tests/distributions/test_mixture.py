import pytest
import torch
from scipy import stats
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from chartae.distributions.mixture import NormalMixture
from chartae.errors import ConfigurationError


def parameters(k, d, scale, offset=0.0):
    generator = torch.Generator().manual_seed(0)
    loc = offset + torch.randn(k, d, dtype=torch.float64, generator=generator)
    spread = scale * (0.5 + torch.rand(k, d, dtype=torch.float64, generator=generator))
    return loc.requires_grad_(), spread.requires_grad_()


def reference(loc, scale, weights=None):
    shares = torch.ones(len(loc), dtype=loc.dtype) if weights is None else weights
    return MixtureSameFamily(Categorical(probs=shares), Independent(Normal(loc, scale), 1))


def points(loc, scale, *shape):
    """Points at components, which meet the sharpest peaks, ``(*shape, d)``."""
    component = torch.randint(len(loc), shape, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(*shape, loc.shape[1], dtype=loc.dtype)
    return loc[component].detach() + scale[component].detach() * noise


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize(("k", "d"), [(1, 1), (5, 3), (50, 16)])
def test_density_and_gradients_are_those_of_the_components(k, d, scale):
    torch.manual_seed(0)
    loc, spread = parameters(k, d, scale, offset=30.0)
    z = points(loc, spread, 7, 2).requires_grad_()
    value, expected = (f(loc, spread).log_prob(z) for f in (NormalMixture, reference))
    assert value.shape == (7, 2)
    # Squares of 1 / scale cancel, of 16 digits.
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12 + 1e-14 * d / scale**2)
    found = torch.autograd.grad(value.sum(), (z, loc, spread))
    for slope, truth in zip(
        found, torch.autograd.grad(expected.sum(), (z, loc, spread)), strict=True
    ):
        size = float(truth.abs().max())
        torch.testing.assert_close(slope, truth, rtol=1e-6, atol=1e-6 * size)


@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize(("k", "d"), [(1, 1), (5, 3), (20, 8)])
def test_components_with_correlations_are_those_of_torch(k, d, scale):
    torch.manual_seed(0)
    loc, spread = parameters(k, d, scale, offset=30.0)
    lower = (0.5 * scale * torch.randn(k, d, d).double()).tril(-1)
    factor = (lower + torch.diag_embed(spread.detach())).requires_grad_()
    shares = torch.rand(k).double()
    normals = MultivariateNormal(loc, scale_tril=factor.tril())
    expected = MixtureSameFamily(Categorical(probs=shares), normals)
    mixture = NormalMixture(loc, factor.tril(), shares)
    z = points(loc, spread, 7, 2).requires_grad_()
    value, truth = mixture.log_prob(z), expected.log_prob(z)
    tolerance = 1e-11 + 1e-12 * d / scale**2
    torch.testing.assert_close(value, truth, rtol=1e-10, atol=tolerance)
    for slope, right in zip(
        torch.autograd.grad(value.sum(), (z, loc, factor)),
        torch.autograd.grad(truth.sum(), (z, loc, factor)),
        strict=True,
    ):
        torch.testing.assert_close(slope, right, rtol=1e-5, atol=1e-5 * float(right.abs().max()))
    torch.testing.assert_close(mixture.mean, expected.mean)
    torch.testing.assert_close(mixture.variance, expected.variance)
    deviations = torch.linalg.eigvalsh(normals.covariance_matrix).amin(-1).sqrt()
    torch.testing.assert_close(mixture.narrowest, deviations)


def test_draws_of_components_with_correlations():
    factor = torch.tensor([[[2.0, 0.0], [1.5, 0.5]], [[0.3, 0.0], [-0.2, 0.1]]])
    loc = torch.tensor([[-20.0, 0.0], [20.0, 0.0]])
    mixture = NormalMixture(loc, factor, torch.tensor([0.3, 0.7]))
    z = mixture.sample(torch.Size([40_000]), torch.Generator().manual_seed(0))
    first = z[:, 0] < 0
    assert first.float().mean().item() == pytest.approx(0.3, abs=0.01)
    for component, draws in enumerate((z[first], z[~first])):
        torch.testing.assert_close(draws.mean(0), loc[component], atol=0.1, rtol=0)
        expected = factor[component] @ factor[component].mT
        torch.testing.assert_close(torch.cov(draws.mT), expected, rtol=0.04, atol=0.01)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_float32_is_as_good_as_its_inputs(scale):
    torch.manual_seed(0)
    loc, spread = (p.detach().float() for p in parameters(20, 8, scale))
    z = points(loc, spread, 100)
    log_prob = NormalMixture(loc, spread).log_prob(z)
    assert log_prob.dtype == torch.float32
    expected = reference(loc.double(), spread.double()).log_prob(z.double())
    torch.testing.assert_close(log_prob, expected.float(), rtol=1e-6, atol=1e-5)
    far = NormalMixture(loc, spread).log_prob(1e3 * torch.ones(8))
    assert torch.isfinite(far)


def test_gradients_reach_the_parameters_by_the_chain_rule():
    loc, spread = parameters(3, 2, 0.5)
    z = torch.randn(4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: NormalMixture(a, b).log_prob(z), (loc, spread))


def test_components_of_unequal_weights():
    loc, spread = (p.detach() for p in parameters(4, 3, 0.5))
    weights = torch.tensor([3.0, 1.0, 0.0, 4.0], dtype=torch.float64)
    p, twin = NormalMixture(loc, spread, weights), reference(loc, spread, weights)
    z = points(loc, spread, 50)
    torch.testing.assert_close(p.log_prob(z), twin.log_prob(z))
    torch.testing.assert_close(p.mean, twin.mean)
    torch.testing.assert_close(p.variance, twin.variance)
    torch.testing.assert_close(p.log_joint(z).exp().sum(-1), twin.log_prob(z).exp())
    drawn = p.sample((40_000,), torch.Generator().manual_seed(0))
    error = 5 * (p.variance / 40_000).sqrt()
    assert ((drawn.mean(0) - p.mean).abs() < error).all()
    assert (drawn == p.sample((40_000,), torch.Generator().manual_seed(0))).all()
    with pytest.raises(ConfigurationError, match=r"weights has shape \(3,\): expected \(4,\)"):
        NormalMixture(loc, spread, weights[:3])


def test_many_points_are_taken_in_pieces(monkeypatch):
    loc, spread = (p.detach() for p in parameters(5, 3, 0.5))
    z = points(loc, spread, 4, 7)
    whole = NormalMixture(loc, spread).log_prob(z)
    monkeypatch.setattr("chartae.distributions.mixture.PAIRS", 12)
    torch.testing.assert_close(NormalMixture(loc, spread).log_prob(z), whole)


def test_samples_and_moments():
    loc = torch.tensor([[-2.0, 0.0], [0.0, 1.0], [3.0, 5.0]], requires_grad=True)
    scale = torch.tensor([[0.1, 1.0], [1.0, 0.5], [0.5, 0.2]])
    p, twin = NormalMixture(loc, scale), reference(loc, scale)
    torch.testing.assert_close(p.mean, twin.mean)
    torch.testing.assert_close(p.variance, twin.variance)
    torch.manual_seed(0)
    z = p.sample((4000,))
    assert not z.requires_grad
    for z_j, loc_j, scale_j in zip(z.T, loc.detach().numpy().T, scale.numpy().T, strict=True):

        def cdf(v, loc=loc_j, scale=scale_j):
            return stats.norm.cdf(v[:, None], loc, scale).mean(1)

        assert stats.kstest(z_j, cdf).pvalue > 1e-3
    correlation = torch.corrcoef(z.T)[0, 1]  # coordinates are of the same component
    expected = (loc[:, 0] * loc[:, 1]).mean() - p.mean.prod()
    assert correlation.item() == pytest.approx((expected / p.stddev.prod()).item(), abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_seeds(dtype):
    p = NormalMixture(torch.randn(4, 3, dtype=dtype), torch.tensor(0.5, dtype=dtype))
    assert (p.batch_shape, p.event_shape) == ((), (3,))
    for shape in ((), (5,), (5, 2)):
        torch.manual_seed(0)
        z = p.sample(torch.Size(shape))
        torch.manual_seed(0)
        assert (p.sample(torch.Size(shape)) == z).all()
        assert z.shape == (*shape, 3)
        assert p.log_prob(z).shape == shape
        assert z.dtype == p.log_prob(z).dtype == dtype


def test_bad_shapes_are_refused():
    for shape in ((3,), (0, 3), (2, 3, 4)):
        with pytest.raises(ConfigurationError, match=r"loc has shape .*: expected \(K, d\)"):
            NormalMixture(torch.zeros(shape), torch.ones(()))
    with pytest.raises(ConfigurationError, match=r"scale has shape \(2,\): expected a shape"):
        NormalMixture(torch.zeros(4, 3), torch.ones(2))
