"""A model of one's own says only what is new in it."""

import torch

from chartae.distributions import DiagonalNormal
from chartae.models import HVAE, VAE, Losses, VariationalAutoencoder


class Sparse(VAE):
    """An argument more, the others passed on."""

    def __init__(self, input_shape, latent_dim, *, weight=0.1, **networks):
        super().__init__(input_shape, latent_dim, **networks)
        self.weight = weight

    def loss(self, x, *, y=None, mask=None):
        losses = super().loss(x, y=y, mask=mask)
        penalty = self.embed(x, y).abs().mean()
        total = losses.objectives["model"] + self.weight * penalty
        return Losses.of(total, **losses.terms, penalty=penalty)


class Frozen(HVAE):
    """Decides an argument of the class above by itself."""

    def __init__(self, input_shape, latent_dim):
        super().__init__(input_shape, latent_dim, step_size=0.02)


class Passing(HVAE):
    """Passes on whatever the class above takes."""

    def __init__(self, *args, extra=1, **options):
        super().__init__(*args, **options)
        self.extra = extra


def test_configurations_hold_what_each_constructor_takes():
    sparse = Sparse((4,), 2, weight=0.3, decoder={"name": "mlp", "hidden": [3]})
    assert set(sparse.config()) == {
        "input_shape", "latent_dim", "weight", "encoder", "decoder", "likelihood", "conditions",
        "posterior_covariance", "posterior_rank",
    }  # fmt: skip
    assert Sparse(**sparse.config()).config() == sparse.config()
    assert Frozen((4,), 2).config() == {"input_shape": (4,), "latent_dim": 2}
    passing = Passing((4,), 2, extra=5, num_leapfrog=7, likelihood="laplace")
    assert passing.config()["num_leapfrog"] == 7
    assert Passing(**passing.config()).config() == passing.config()


def test_the_primitive_is_enough():
    # Only the prior is new: the loss, the bounds and the likelihood follow.
    class Wide(VariationalAutoencoder):
        def prior(self, y=None):
            prior = super().prior(y)
            return DiagonalNormal(prior.mean, 2.0 * prior.stddev)

    model = Wide((4,), 2)
    x = torch.rand(5, 4)
    torch.manual_seed(0)
    weights = model.log_weights(x, 3)
    torch.manual_seed(0)
    torch.testing.assert_close(model.elbo(x, 3), weights.mean(0))
    torch.manual_seed(0)
    torch.testing.assert_close(
        model.log_likelihood(x, 3), weights.logsumexp(0) - torch.tensor(3).log()
    )
