import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chartae.errors import ConfigurationError, DataError
from chartae.geometry import CentroidMetric


def random_metric(n=5, d=3, *, temperature=1.3, regularization=1e-2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    centroids = torch.randn(n, d, generator=generator, dtype=torch.float64)
    factors = torch.randn(n, d, d, generator=generator, dtype=torch.float64) / math.sqrt(d)
    matrices = factors @ factors.mT + 0.1 * torch.eye(d, dtype=torch.float64)
    return CentroidMetric(centroids.to(dtype), matrices.to(dtype), temperature, regularization)


def naive_inverse(metric: CentroidMetric, z: torch.Tensor) -> torch.Tensor:
    """The inverse metric as MATH.md section 3 writes it."""
    difference = z[..., None, :] - metric.centroids
    weights = torch.exp(-difference.square().sum(-1) / metric.temperature**2)
    total = torch.einsum("...n,nij->...ij", weights, metric.matrices)
    return total + metric.regularization * torch.eye(metric.dim, dtype=z.dtype)


shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@given(
    d=st.integers(1, 5),
    n=st.integers(1, 7),
    batch=shapes,
    temperature=st.sampled_from([0.3, 0.8, 2.0]),
    regularization=st.sampled_from([1e-3, 0.1, 1.0]),
    seed=st.integers(0, 1000),
)
def test_closed_forms_against_autograd(d, n, batch, temperature, regularization, seed):
    metric = random_metric(n, d, temperature=temperature, regularization=regularization, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    z, u, p = torch.randn(3, *batch, d, generator=generator, dtype=torch.float64)
    z.requires_grad_()
    p.requires_grad_()
    inverse = naive_inverse(metric, z)
    log_volume = -0.5 * torch.logdet(inverse)
    kinetic = 0.5 * torch.einsum("...i,...ij,...j->...", p, inverse, p)
    (volume_grad,) = torch.autograd.grad(log_volume.sum(), z, retain_graph=True)
    kinetic_grad, velocity = torch.autograd.grad(kinetic.sum(), (z, p), retain_graph=True)
    tensor = torch.linalg.inv(inverse)
    close = {"rtol": 1e-7, "atol": 1e-9}
    torch.testing.assert_close(metric.inverse(z), inverse, **close)
    torch.testing.assert_close(metric.tensor(z), tensor, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(metric.log_volume(z), log_volume, **close)
    torch.testing.assert_close(metric.log_volume_grad(z), volume_grad, **close)
    torch.testing.assert_close(metric.hamiltonian(z, p), kinetic, **close)
    by_z, by_p = metric.hamiltonian_grad(z, p)
    torch.testing.assert_close(by_z, kinetic_grad, **close)
    torch.testing.assert_close(by_p, velocity, **close)
    torch.testing.assert_close(
        metric.inner(z, u, p), torch.einsum("...i,...ij,...j->...", u, tensor, p), **close
    )
    torch.testing.assert_close(
        metric.norm(z, u).square(), torch.einsum("...i,...ij,...j->...", u, tensor, u), **close
    )


def test_everything_can_be_differentiated_again():
    # The flow of an RHVAE is trained through the closed forms.
    metric = random_metric(4, 2)
    z, p = torch.randn(2, 6, 2, dtype=torch.float64)

    def closed_forms(centroids, factors, z, p):
        local = CentroidMetric(centroids, factors @ factors.mT, 1.3, 0.01).at(z)
        return local.log_volume_grad(), local.kinetic_grad(p), local.velocity(p), local.log_volume

    factors = torch.linalg.cholesky(metric.matrices)
    inputs = [t.clone().requires_grad_() for t in (metric.centroids, factors, z, p)]
    assert torch.autograd.gradcheck(closed_forms, inputs)


@pytest.mark.parametrize("d", [1, 2, 10])
def test_float32_is_close_to_float64(d):
    for seed in range(5):
        exact = random_metric(30, d, regularization=1e-3, seed=seed)
        single = random_metric(30, d, regularization=1e-3, seed=seed, dtype=torch.float32)
        z, p = torch.randn(2, 50, d, dtype=torch.float64)
        for name, arguments in [
            ("inverse", (z,)),
            ("log_volume", (z,)),
            ("log_volume_grad", (z,)),
            ("hamiltonian", (z, p)),
        ]:
            expected = getattr(exact, name)(*arguments)
            result = getattr(single, name)(*[a.float() for a in arguments])
            assert result.dtype == torch.float32
            size = float(expected.abs().max())
            torch.testing.assert_close(result.double(), expected, rtol=1e-3, atol=1e-4 * size)


def test_a_metric_far_from_the_origin_keeps_its_precision():
    exact = random_metric(10, 2)
    shift = torch.tensor([500.0, -800.0], dtype=torch.float64)
    moved = CentroidMetric(
        (exact.centroids + shift).float(), exact.matrices.float(), 1.3, exact.regularization
    )
    z = torch.randn(50, 2, dtype=torch.float64)
    result, expected = moved.log_volume((z + shift).float()), exact.log_volume(z)
    torch.testing.assert_close(result.double(), expected, atol=1e-3, rtol=0)


def test_momenta_of_white_noise():
    metric = random_metric(10, 3)
    z, noise = torch.randn(2, 50, 3, dtype=torch.float64)
    local = metric.at(z)
    momentum = local.draw_momentum(noise)
    # Linear in the noise, with p^T G^-1 p = |noise|^2: so its covariance is G.
    torch.testing.assert_close(local.kinetic(momentum), 0.5 * noise.square().sum(-1))
    columns = torch.stack([local.draw_momentum(e.expand(50, 3)) for e in torch.eye(3).double()], -1)
    torch.testing.assert_close(columns @ columns.mT, metric.tensor(z))


def test_near_and_far():
    metric = random_metric(4, 3)
    # At a centroid its own weight is 1; far away the inverse is lambda I, and its slopes vanish.
    lone = CentroidMetric(metric.centroids[:1], metric.matrices[:1], 1.0, 0.5)
    expected = metric.matrices[0] + 0.5 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(lone.inverse(metric.centroids[0]), expected)
    assert (lone.log_volume_grad(metric.centroids[0]).abs() < 1e-12).all()
    for dtype in (torch.float32, torch.float64):
        far = torch.full((3,), 1e4, dtype=dtype)
        metric.to(dtype)
        torch.testing.assert_close(metric.inverse(far), 0.01 * torch.eye(3, dtype=dtype))
        assert float(metric.log_volume(far)) == pytest.approx(-1.5 * math.log(0.01), rel=1e-5)
        assert (metric.log_volume_grad(far).abs() < 1e-25).all()


def test_the_volume_is_small_near_the_data():
    metric = random_metric(4, 2)
    assert not metric.volume_is_large_near_data
    centroids = metric.centroids
    assert (metric.log_volume(centroids) < metric.log_volume(centroids + 20)).all()


def test_nan_stays_where_it_is():
    metric = random_metric(4, 2)
    z = torch.zeros(3, 2, dtype=torch.float64)
    z[1] = math.nan
    for values in (metric.log_volume(z), metric.log_volume_grad(z).sum(-1)):
        assert torch.isfinite(values).tolist() == [True, False, True]


def test_state_moves_and_copies_with_the_module():
    metric = random_metric()
    assert set(metric.state_dict()) == {"centroids", "matrices"}
    other = copy.deepcopy(metric)
    other.centroids.zero_()
    assert metric.centroids.abs().sum() > 0
    assert metric.float().inverse(torch.zeros(3)).dtype == torch.float32
    assert metric.dim == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"centroids": torch.zeros(5)},
            DataError,
            r"centroids has shape \(5,\): expected \(N, d\)",
        ),
        ({"centroids": torch.zeros(5, 2).long()}, DataError, "centroids has dtype"),
        ({"matrices": torch.zeros(4, 2, 2)}, DataError, r"matrices has shape .* \(5, 2, 2\)"),
        ({"matrices": torch.full((5, 2, 2), math.nan)}, DataError, "matrices has 20 NaN"),
        ({"centroids": torch.full((5, 2), math.inf)}, DataError, "centroids has 10 NaN or inf"),
        ({"temperature": 0.0}, ConfigurationError, "temperature=0.0: .* greater than 0"),
        ({"regularization": -1.0}, ConfigurationError, "regularization=-1.0: .* greater than 0"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    arguments = {
        "centroids": torch.zeros(5, 2),
        "matrices": torch.eye(2).expand(5, 2, 2),
        "temperature": 1.0,
        "regularization": 0.1,
    }
    with pytest.raises(error, match=message):
        CentroidMetric(**{**arguments, **change})


def test_bad_points_are_refused():
    metric = random_metric()
    with pytest.raises(DataError, match=r"z has shape \(4, 2\): expected \(..., 3\)"):
        metric.tensor(torch.zeros(4, 2, dtype=torch.float64))
    with pytest.raises(DataError, match="z has dtype torch.float32: the metric has torch.float64"):
        metric.tensor(torch.zeros(4, 3))


def test_a_loaded_state_replaces_everything_derived():
    first, second = (
        CentroidMetric(torch.randn(5, 2), torch.eye(2).expand(5, 2, 2).clone() * k, 1.0, 0.1)
        for k in (1.0, 3.0)
    )
    first.load_state_dict(second.state_dict())
    z = torch.randn(4, 2)
    torch.testing.assert_close(first.inverse(z), second.inverse(z))
    torch.testing.assert_close(first.log_volume_grad(z), second.log_volume_grad(z))
