"""200 chains x 100 steps x 15 leapfrog steps on a metric of 200 centroids, d = 10: chartae, Pythae.

Both get the same centroids, matrices and step size, start at centroids, and return latents (nothing
is decoded). Ours makes no warm-up in the comparison of equals; a second row has the defaults of
`VolumeSampler(target="volume")`, whose fewer steps mix better, for they jump.
"""

from functools import partial

import peer
import torch
from harness import Row, interleave, main
from pythae.models.rhvae.rhvae_utils import create_inverse_metric, create_metric

import chartae
from chartae.geometry import ManifoldDensity, hmc

CHAINS, STEPS, LEAPFROG, CENTROIDS, LATENT_DIM, STEP_SIZE = 200, 100, 15, 200, 10, 0.03
TEMPERATURE, REGULARIZATION, FEATURES = 1.5, 1e-3, 64


def measure(rounds: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    centroids = torch.randn(CENTROIDS, LATENT_DIM, generator=generator)
    lower = 0.3 * torch.randn(CENTROIDS, LATENT_DIM, LATENT_DIM, generator=generator).tril(-1)
    factors = lower + torch.eye(LATENT_DIM)
    matrices = factors @ factors.mT

    model = chartae.RHVAE(
        (FEATURES,), LATENT_DIM, temperature=TEMPERATURE, regularization=REGULARIZATION
    )
    model.centroids, model.matrices = centroids, matrices
    model.fitted_temperature.fill_(TEMPERATURE)
    model.eval()
    density = ManifoldDensity(model.metric)
    options = {"num_leapfrog": LEAPFROG, "step_size": STEP_SIZE, "num_warmup": 0}
    equal = partial(hmc, density, centroids[:CHAINS], num_steps=STEPS, **options)
    jumping = chartae.VolumeSampler(model, target="volume")

    theirs = peer.RHVAE(
        peer.RHVAEConfig(
            input_dim=(FEATURES,),
            latent_dim=LATENT_DIM,
            temperature=TEMPERATURE,
            regularization=REGULARIZATION,
        )
    )
    # As its `load_from_folder` does.
    theirs.centroids_tens, theirs.M_tens = centroids, matrices
    theirs.G, theirs.G_inv = create_metric(theirs), create_inverse_metric(theirs)
    sampler = peer.RHVAESampler(
        theirs, peer.RHVAESamplerConfig(mcmc_steps_nbr=STEPS, n_lf=LEAPFROG, eps_lf=STEP_SIZE)
    )
    z = torch.randn(5, LATENT_DIM, generator=generator)
    torch.testing.assert_close(theirs.G_inv(z), model.metric.inverse(z))

    contestants = {
        "pythae": lambda: _discard(sampler.hmc_sampling(CHAINS)),
        "ours": lambda: _discard(equal(generator=torch.Generator().manual_seed(0)).final),
        "jumping": lambda: _discard(jumping.sample_latents(CHAINS, seed=0)),
    }
    times = interleave(contestants, rounds)
    what = "Hamiltonian Monte Carlo, 200 chains x 100 steps x 15 leapfrog, N = 200, d = 10: speed"
    seconds = {name: times.median(name) for name in contestants}
    return [
        Row(
            what,
            "Pythae 0.1.2's RHVAESampler",
            times.ratios("pythae", "ours"),
            6.0,
            detail=f"{seconds['ours']:.2f} against {seconds['pythae']:.2f} s",
        ),
        Row(
            f"{what}, the defaults in place of 100 steps",
            "Pythae 0.1.2's RHVAESampler",
            times.ratios("pythae", "jumping"),
            None,
            detail=f"{seconds['jumping']:.2f} against {seconds['pythae']:.2f} s",
        ),
    ]


def _discard(samples: torch.Tensor) -> None:
    assert samples.shape == (CHAINS, LATENT_DIM)


if __name__ == "__main__":
    main(measure, rounds=5)
