"""An accelerator: the VAE against a plain loop, every model against Pythae, and the samplers.

python benchmarks/speed/gpu.py                        # on CUDA, some minutes
python benchmarks/speed/gpu.py --device cpu --quick   # shows on any machine that it works

The images are on the device before a clock starts (those of Pythae on the CPU, where its loader
expects them), and it stops only when the device is done. chartae is timed around the whole call of
`fit`, with its default arguments but the progress bar off. The plain loop does nothing but train,
once eagerly and, on CUDA, once with its loss compiled and captured as CUDA graphs
(``torch.compile(mode="reduce-overhead")``). Of Pythae's trainer the epochs alone are timed.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import peer
import torch
import zoo
from harness import Times, interleave, machine, quartiles
from plain import FEATURES, LATENT_DIM, PlainVAE, binary_data, library_vae, train
from torch import Tensor

import chartae
from chartae import samplers
from chartae.models import Autoencoder


@dataclass(frozen=True)
class Sizes:
    """How much is timed."""

    images: int
    batches: tuple[int, ...]
    rounds: int
    epochs: int
    samples: int
    hidden: tuple[int, ...] = (512, 256)


FULL = Sizes(images=10_000, batches=(100, 1000), rounds=5, epochs=3, samples=1000)
QUICK = Sizes(images=60, batches=(30,), rounds=1, epochs=1, samples=4, hidden=(8,))


@dataclass(frozen=True)
class Drawn:
    """A sampler to time, on a model; ``quick`` are options that make it as short as can be."""

    model: str
    sampler: str
    quick: dict[str, Any] = field(default_factory=dict)


SHORT = {"num_steps": 2, "num_leapfrog": 1, "num_warmup": 2}
DRAWN = (
    Drawn("VAE", "NormalSampler"),
    Drawn("VAE", "MixtureSampler", {"num_components": 2}),
    Drawn("VAE", "FlowSampler", {"epochs": 1}),
    Drawn("VAE", "TwoStageSampler", {"epochs": 1}),
    Drawn("VAE", "VolumeSampler", SHORT),
    Drawn("RHVAE", "VolumeSampler", SHORT),
    Drawn("RHVAE", "RandomWalkSampler", {"num_steps": 1, "num_integration_steps": 1}),
    Drawn("VAMP", "VampSampler"),
    Drawn("SVAE", "SphereSampler"),
    Drawn("PoincareVAE", "PoincareSampler"),
    Drawn("VQVAE", "CodeSampler", {"epochs": 1, "channels": 4, "num_layers": 1}),
)


def finished() -> None:
    """Wait until the accelerator, if there is one, has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of work on the device."""
    finished()
    start = time.perf_counter()
    work()
    finished()
    return time.perf_counter() - start


def fit(model: Autoencoder, x: Tensor, batch: int, epochs: int, **options: Any) -> None:
    chartae.fit(
        model, x, epochs=epochs, batch_size=batch, learning_rate=1e-3, seed=0, progress=False,
        **options,
    )  # fmt: skip


def vae(x: Tensor, batch: int, sizes: Sizes) -> tuple[Times, dict[str, float]]:
    """Time the VAE 784-400-16; return the times, and images a second of each contestant."""
    flat = x.flatten(1)

    def plain(compiled: bool) -> float:
        torch.compiler.reset()  # or the graphs of the last rounds would count against its limit
        model = PlainVAE().to(x.device)
        if compiled:
            model.loss = torch.compile(model.loss, mode="reduce-overhead")
            train(model, flat[: 2 * batch], epochs=2, batch_size=batch)  # compiles and captures
        return timed(lambda: train(model, flat, epochs=sizes.epochs, batch_size=batch))

    def ours(compiled: bool) -> float:
        torch.compiler.reset()
        options = {"compile": "reduce-overhead"} if compiled else {}
        model = library_vae()
        if compiled:
            fit(model, flat[: 2 * batch], batch, 2, **options)  # the same, for the code of chartae
        return timed(lambda: fit(model, flat, batch, sizes.epochs, **options))

    def pythae() -> float:
        config = peer.VAEConfig((FEATURES,), LATENT_DIM, reconstruction_loss="bce")
        networks = (peer.Encoder(FEATURES, LATENT_DIM), peer.Decoder(FEATURES, LATENT_DIM))
        model = peer.VAE(config, encoder=networks[0], decoder=networks[1])
        return sizes.epochs * peer.train(model, flat.cpu(), epochs=1, batch_size=batch)

    contestants: dict[str, Callable[[], float]] = {
        "chartae": lambda: ours(compiled=False),
        "plain loop": lambda: plain(compiled=False),
        "Pythae": pythae,
    }
    if x.is_cuda:  # elsewhere the compiler needs minutes, and captures nothing
        contestants |= {
            "chartae, captured": lambda: ours(compiled=True),
            "plain loop, captured": lambda: plain(compiled=True),
        }
    times = interleave(contestants, sizes.rounds)
    images = sizes.epochs * len(x)
    return times, {name: images / times.median(name) for name in contestants}


def pair_seconds(pair: zoo.Pair, x: Tensor, batch: int, sizes: Sizes) -> Times:
    """Time an epoch of a model, and of the same of Pythae."""

    def ours() -> float:
        model = pair.build(sizes.hidden)
        return timed(lambda: fit(model, x, batch, 1))

    def pythae() -> float:
        return peer.train(pair.build_peer(sizes.hidden), x.cpu(), epochs=1, batch_size=batch)

    return interleave({"ours": ours, "pythae": pythae}, sizes.rounds)


def sampler_seconds(drawn: Drawn, x: Tensor, sizes: Sizes, quick: bool) -> tuple[float, float]:
    """Return the seconds to fit a sampler on 1,000 images, and to draw ``sizes.samples``."""
    pair = next(p for p in zoo.PAIRS if p.ours == drawn.model)
    model = pair.build(sizes.hidden)
    fit(model, x, sizes.batches[0], 1)
    model.to(x.device)
    options = drawn.quick if quick else {}
    sampler = getattr(samplers, drawn.sampler)(model, **options)
    learned = timed(lambda: sampler.fit(x[:1000]))
    sampler.sample(sizes.samples, seed=1)  # what the first call alone does
    return learned, timed(lambda: sampler.sample(sizes.samples, seed=0))


def report(x: Tensor, sizes: Sizes, models: list[str], quick: bool) -> None:
    """Print the three tables."""
    for batch in sizes.batches:
        times, rates = vae(x, batch, sizes)
        print(f"\nVAE 784-400-16, {len(x):,} images, batch {batch}:\n")
        print("| | images/s | of the plain loop |\n|---|---|---|")
        for name, rate in rates.items():
            low, middle, high = quartiles(times.ratios("plain loop", name))
            print(f"| {name} | {rate:,.0f} | {middle:.2f} ({low:.2f} to {high:.2f}) |", flush=True)
    batch = sizes.batches[0]
    layers = "-".join(map(str, (FEATURES, *sizes.hidden, "d")))
    print(f"\nAn epoch of {len(x):,} images, {layers}, batch {batch}:\n")
    print("| model | settings | images/s | Pythae: images/s | ratio |\n|---|---|---|---|---|")
    for pair in [p for p in zoo.PAIRS if not models or p.ours in models]:
        times = pair_seconds(pair, x, batch, sizes)
        low, middle, high = quartiles(times.ratios("pythae", "ours"))
        ours, theirs = (len(x) / times.median(name) for name in ("ours", "pythae"))
        figures = f"{ours:,.0f} | {theirs:,.0f} | **{middle:.1f}** ({low:.1f} to {high:.1f})"
        print(f"| {pair.ours} | {pair.settings} | {figures} |", flush=True)
    print(f"\n{sizes.samples:,} samples of samplers, fitted on {min(1000, len(x)):,} images:\n")
    print("| sampler | of | fit, s | samples/s |\n|---|---|---|---|")
    for drawn in [d for d in DRAWN if not models or d.model in models]:
        learned, seconds = sampler_seconds(drawn, x, sizes, quick)
        figures = f"{learned:.2f} | {sizes.samples / seconds:,.0f}"
        print(f"| {drawn.sampler} | {drawn.model} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="as little as possible, once")
    parser.add_argument("--models", nargs="*", default=[], help="names in chartae; default: all")
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int)
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - {pair.ours for pair in zoo.PAIRS}:
        parser.error(f"--models: {', '.join(sorted(unknown))} is not among the models timed here")
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # neither library then finds another device
    elif not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here; --device cpu runs anywhere")
    chosen = QUICK if arguments.quick else FULL
    given = {name: getattr(arguments, name) for name in ("images", "rounds")}
    sizes = Sizes(**(vars(chosen) | {k: v for k, v in given.items() if v is not None}))
    facts = machine()
    if arguments.device == "cuda":
        facts = {"GPU": torch.cuda.get_device_name(), **facts}
    print("; ".join(f"{name} {value}" for name, value in facts.items()))
    x = binary_data(sizes.images).reshape(-1, *zoo.SHAPE).to(arguments.device)
    report(x, sizes, arguments.models, arguments.quick)


if __name__ == "__main__":
    main()
