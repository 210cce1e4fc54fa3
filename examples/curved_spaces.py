"""Latent spaces of several kinds in pictures: the thesis' Figures 2, 3 and 4.

Three VAEs learn scikit-learn's 8 x 8 digits: with a normal latent space, on the Poincaré disk, and
on the sphere. Three figures are written to a folder: ``python examples/curved_spaces.py [FOLDER]``,
by default docs/figures. It takes less than a minute.
"""

import sys
from pathlib import Path

import torch

import chartae
from chartae.data import digits
from chartae.report import latent_spaces, sampler_maps, sphere_and_disk

SHOWN = 600
"""Images whose codes are drawn."""


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    data = digits()
    shape = data.input_shape
    models = {
        "normal": chartae.VAE(shape, 2, likelihood="bernoulli"),
        "Poincaré disk": chartae.PoincareVAE(shape, 2, likelihood="bernoulli"),
        "sphere": chartae.SVAE(shape, 3, likelihood="bernoulli"),
    }
    for model in models.values():
        chartae.fit(model, data.x, epochs=60, seed=0, progress=False)
    x, y = data.x[:SHOWN], data.y[:SHOWN]
    vae = models["normal"]
    samplers = {
        "prior": chartae.NormalSampler(vae),
        "Gaussian mixture": chartae.MixtureSampler(vae, num_components=10).fit(data.x),
        "flow (MAF)": chartae.FlowSampler(vae, learning_rate=1e-3, epochs=40).fit(data.x),
    }
    figures = {
        "latent-spaces": latent_spaces(models, x, y),
        "sphere-and-disk": sphere_and_disk(),
        "sampler-latents": sampler_maps(samplers, x, y),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=80)
        print(folder / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures"))
