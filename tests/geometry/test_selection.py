import pytest
import torch

from chartae.errors import ConfigurationError
from chartae.geometry.metrics import selection
from chartae.geometry.metrics.selection import nearest_neighbour_distances, select_centroids


def clustered(n=400, clusters=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 5 * torch.randn(clusters, 2, generator=generator)
    # Most points are in one cluster, which is what random centroids spend themselves on.
    label = torch.randint(4 * clusters, (n,), generator=generator).clamp_max(clusters - 1)
    return centres[label] + 0.3 * torch.randn(n, 2, generator=generator)


def reach(codes: torch.Tensor, chosen: torch.Tensor) -> float:
    return float(torch.cdist(codes, codes[chosen]).amin(1).mean())


def test_medoids_are_nearer_than_random_codes():
    for seed in range(3):
        codes = clustered(200, seed=seed)
        medoids = reach(codes, select_centroids(codes, 8, "k-medoids", seed))
        assert medoids < 0.5
        assert medoids < 0.8 * reach(codes, select_centroids(codes, 8, "random", seed))


@pytest.mark.parametrize("method", ["k-medoids", "random"])
def test_chosen_once_sorted_and_by_the_seed(method):
    codes = clustered()
    first = select_centroids(codes, 20, method, seed=1)
    assert first.shape == (20,)
    assert (first.diff() > 0).all()
    assert 0 <= first.min() <= first.max() < len(codes)
    assert torch.equal(first, select_centroids(codes, 20, method, seed=1))
    if method == "random":
        assert not torch.equal(first, select_centroids(codes, 20, method, seed=2))
    for count in (None, len(codes)):
        assert torch.equal(select_centroids(codes, count, method), torch.arange(len(codes)))


def test_medoids_among_some_of_very_many_codes(monkeypatch):
    monkeypatch.setattr(selection, "POOL", 100)
    codes = clustered()
    assert reach(codes, select_centroids(codes, 8)) < 1.0
    assert len(select_centroids(codes, 150)) == 150


def test_nearest_neighbours_by_brute_force(monkeypatch):
    monkeypatch.setattr(selection, "BLOCK", 100)  # several blocks
    codes = clustered(40)
    variances = 0.1 + torch.rand(40, 2, generator=torch.Generator().manual_seed(1))
    difference = (codes[:, None] - codes).double().square()
    for scale, arguments in ((1.0, ()), (variances.double(), (variances,))):
        squared = (difference / scale).sum(-1).fill_diagonal_(torch.inf)
        expected = squared.amin(1).sqrt()
        torch.testing.assert_close(nearest_neighbour_distances(codes, *arguments), expected)
        some = nearest_neighbour_distances(codes, *arguments, every=3)
        torch.testing.assert_close(some, expected[::3])


def test_bad_arguments_are_refused():
    codes = clustered(10)
    with pytest.raises(ConfigurationError, match="num_centroids=11: expected .* at most 10"):
        select_centroids(codes, 11)
    with pytest.raises(ConfigurationError, match="num_centroids=0: expected .* at least 1"):
        select_centroids(codes, 0)
    with pytest.raises(ConfigurationError, match="selection='k-medoid' .* mean 'k-medoids'"):
        select_centroids(codes, 3, "k-medoid")
    with pytest.raises(ConfigurationError, match="seed=-1"):
        select_centroids(codes, 3, seed=-1)
