"""The geometry of two latent spaces in pictures: the thesis' Figures 1.2, 2.1, 2.2 and 3.1.

A VAE and an RHVAE learn 180 disks and rings in two latent dimensions, and eight figures are written
to a folder: ``python examples/geometry_tutorial.py [FOLDER]``, by default docs/figures.
It takes about three minutes on two CPU cores.
"""

import sys
from pathlib import Path

import torch

import chartae
from chartae.data import disks_and_rings
from chartae.geometry import (
    ConformalMetric,
    PosteriorMetric,
    WrappedNormal,
    length,
    random_walk,
    shortest_paths,
)
from chartae.randomness import make_generator, seeded
from chartae.report import (
    Chart,
    chain_traces,
    distance_field,
    exponential_fan,
    image_grid,
    interpolation_figure,
    latent_maps,
)

SEED = 0
NETWORKS = {"encoder": "thesis/mnist", "decoder": "thesis/mnist", "likelihood": "bernoulli"}
# Tables 1.11 and 2.4, "Synthetic": K, step, T, lambda and the square root of beta_0.
HAMILTONIAN = {
    "num_leapfrog": 3,
    "step_size": 0.01,
    "temperature": 0.8,
    "regularization": 1e-3,
    "sqrt_beta_0": 0.3,
}


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    shapes = disks_and_rings(180)
    vae = trained(chartae.VAE, shapes)
    rhvae = trained(chartae.RHVAE, shapes, **HAMILTONIAN)
    figures = {**of_the_rhvae(rhvae, shapes), **of_generation(vae, rhvae, shapes)}
    figures |= of_the_vae(vae, shapes)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=90)
        print(folder / f"{name}.png")


def trained(family, shapes, **options):
    """Train as the thesis does: one batch, Adam at 1e-3, until nothing improves for 50 epochs."""
    with seeded(SEED, family.__name__):
        model = family(shapes.input_shape, 2, **NETWORKS, **options)
    chartae.fit(model, shapes, epochs=2000, batch_size=len(shapes), patience=50, seed=SEED)
    return model


def chart_of(model, shapes, metric=None, samples=None):
    """Return the map of a model's latent space."""
    with torch.no_grad():
        codes = model.encode(shapes.x)
    return Chart(codes, shapes.y, metric, samples, shapes.class_names)


def interpolations(metric, chart, tries=40):
    """Return curves between one pair of codes of each class, ``(classes, T, d)`` by name.

    Of the pairs tried, and of those the half that is farther apart, they are those whose straight
    line is longest against the geodesic: where the geometry matters most.
    """
    generator = make_generator(SEED, "pairs")
    lines, geodesics = [], []
    for label in chart.labels.unique():
        members = chart.codes[chart.labels == label]
        start, end = members[torch.randint(len(members), (2, tries), generator=generator)]
        paths = shortest_paths(metric, start, end)
        times = torch.linspace(0, 1, paths.points.shape[1])[:, None]
        straight = torch.lerp(start[:, None], end[:, None], times)
        gain = length(metric, straight) / paths.lengths
        apart = (end - start).norm(dim=1)
        best = int(gain.where(apart > apart.median(), 0.0).argmax())
        lines.append(straight[best])
        geodesics.append(paths.points[best])
        found = "converged" if paths.converged[best] else "not converged"
        print(
            f"{chart.class_names[label]}: geodesic {paths.lengths[best]:.4g} ({found}), "
            f"straight line {gain[best]:.3g} times as long; "
            f"{int(paths.converged.sum())} of {tries} geodesics converged"
        )
    return {"straight line": torch.stack(lines), "geodesic": torch.stack(geodesics)}


def of_the_rhvae(rhvae, shapes):
    """Return the thesis' Figures 1.2 and 2.1."""
    metric = rhvae.metric
    chart = chart_of(rhvae, shapes, metric)
    starts = chart.codes[far_apart(chart.codes, 3)]
    angles = torch.arange(8) * torch.pi / 4
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    velocities = 2.0 * directions / metric.norm(starts[:, None], directions)[..., None]
    normals = {}
    for number, start in enumerate(starts[:2], start=1):
        normal = WrappedNormal(metric, start, 1.0)
        samples = normal.sample(200, generator=make_generator(SEED, "wrapped", number))
        normals[f"wrapped normal around code {number}"] = chart_of(rhvae, shapes, metric, samples)
    return {
        "rhvae-interpolation": interpolation_figure(
            chart, interpolations(metric, chart), rhvae.decode
        ),
        "exponential-map": exponential_fan(chart, starts, velocities),
        "wrapped-normal": latent_maps(normals),
    }


def far_apart(codes, count):
    """Return the indices of codes that are far from each other, the first the most central."""
    chosen = [int((codes - codes.mean(0)).norm(dim=1).argmin())]
    while len(chosen) < count:
        chosen.append(int(torch.cdist(codes, codes[chosen]).amin(1).argmax()))
    return chosen


def of_generation(vae, rhvae, shapes):
    """Return the thesis' Figure 2.2: prior against random walk, latents and images; and traces."""
    metric, generator = rhvae.metric, make_generator(SEED, "generation")
    codes = chart_of(rhvae, shapes).codes
    initial = codes[torch.randint(len(codes), (100,), generator=generator)]
    published, exact = (
        random_walk(
            metric, initial, num_steps=100, covariance=1.0, exact=exact, generator=generator
        )
        for exact in (False, True)
    )
    prior = torch.randn(100, 2, generator=generator)
    latents = {
        "VAE, prior": (vae, prior, None),
        "RHVAE, prior": (rhvae, prior, metric),
        "RHVAE, random walk as published": (rhvae, published.final, metric),
        "RHVAE, exact random walk": (rhvae, exact.final, metric),
    }
    charts = {
        name: chart_of(model, shapes, shown, z) for name, (model, z, shown) in latents.items()
    }
    with torch.no_grad():
        images = {name: model.decode(z[:50]) for name, (model, z, _) in latents.items()}
    return {
        "generation-latents": latent_maps(charts),
        "generation-images": image_grid(images),
        "random-walk": chain_traces(exact, charts["RHVAE, exact random walk"], max_chains=4),
    }


def of_the_vae(vae, shapes):
    """Return the thesis' Figure 3.1: any VAE has a metric."""
    posterior = PosteriorMetric.from_model(vae, shapes.x)
    chart = chart_of(vae, shapes, posterior)
    potential = ConformalMetric.avoiding_the_void(posterior)  # equation 3.8
    curves = interpolations(potential, chart)
    first = {name: pairs[:1] for name, pairs in curves.items()}
    return {
        "vae-interpolation": interpolation_figure(chart, curves, vae.decode),
        "vae-distance": distance_field(
            chart, curves["geodesic"][0, 0], metric=potential, curves=first
        ),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures"))
