"""One epoch of every model that Pythae has too: 10,000 MNIST images, MLPs, batches of 100.

Both sides have the same layers (784-512-256-16 and back, ReLU), the same images (binary, for
Pythae's HVAE takes no grey), batches and settings, and Adam with a learning rate of 1e-3, each
library's own: ours is fused, Pythae's is PyTorch's default (`--fused` fuses both). chartae is timed
around the whole call of `fit`, set-up and best weights included; of Pythae's trainer the epoch
alone (`peer.train`). A second table has one hidden layer of 64, where matrix products no longer
hide what a step costs otherwise.

    python benchmarks/speed/zoo.py --mnist MNIST.npz
    python benchmarks/speed/zoo.py --mnist MNIST.npz --models VAE IWAE --rounds 7
"""

import argparse
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peer
import pythae.models
from harness import Times, interleave, machine, quartiles
from torch import Tensor

import chartae
from chartae.data import read_data
from chartae.models import Autoencoder

BATCH, SHAPE, FEATURES = 100, (1, 28, 28), 784
NETWORKS = {"784-512-256-16": (512, 256), "784-64-16": (64,)}
SQUARED_ERROR = {"name": "gaussian", "scale": 1.0}


@dataclass(frozen=True)
class Pair:
    """A model of chartae and the same of Pythae, at equal settings.

    Attributes:
        ours: name in chartae.
        theirs: name in Pythae.
        options: of ours.
        peer_options: of Pythae's configuration.
        bernoulli: whether both have a Bernoulli likelihood; False is the squared error.
        latent_dim: size of the latent space.
        heads: what Pythae's encoder gives, by size.
        code_shape: of its embedding.
        note: where the two differ.
    """

    ours: str
    theirs: str
    options: Mapping[str, Any] = field(default_factory=dict)
    peer_options: Mapping[str, Any] = field(default_factory=dict)
    bernoulli: bool = True
    latent_dim: int = 16
    heads: Mapping[str, int] | None = None
    code_shape: tuple[int, ...] | None = None
    note: str = ""

    @property
    def settings(self) -> str:
        """What is set, in words."""
        options = {**self.options, **({} if self.latent_dim == 16 else {"d": self.latent_dim})}
        words = [f"{k}={v}" for k, v in options.items() if k != "discriminator"]
        return "; ".join(filter(None, [", ".join(words), self.note]))

    def build(self, hidden: tuple[int, ...]) -> Autoencoder:
        """Return ours."""
        return getattr(chartae, self.ours)(
            SHAPE,
            self.latent_dim,
            encoder={"name": "mlp", "hidden": hidden},
            decoder={"name": "mlp", "hidden": hidden[::-1]},
            likelihood="bernoulli" if self.bernoulli else SQUARED_ERROR,
            **self.options,
        )

    def build_peer(self, hidden: tuple[int, ...]) -> pythae.models.BaseAE:
        """Return Pythae's."""
        options = {"input_dim": SHAPE, "latent_dim": self.latent_dim, **self.peer_options}
        model, config = getattr(pythae.models, self.theirs), None
        for name in (f"{self.theirs}Config", f"{self.theirs}_Config"):
            config = getattr(pythae.models, name, config)
        if "reconstruction_loss" in config.__dataclass_fields__:
            options["reconstruction_loss"] = "bce" if self.bernoulli else "mse"
        encoder = peer.Encoder(FEATURES, self.latent_dim, hidden, self.heads, self.code_shape)
        # Its HVAE alone wants logits of its decoder.
        sigmoid = self.bernoulli and self.theirs != "HVAE"
        decoder = peer.Decoder(FEATURES, self.latent_dim, hidden[::-1], SHAPE, sigmoid)
        return model(config(**options), encoder=encoder, decoder=decoder)


CODE = {"embedding": 16}
GROUPS = {"num_samples": 5, "num_groups": 5}
PEER_GROUPS = {"number_samples": 5, "number_gradient_estimates": 5}
FLOW = {"num_leapfrog": 3, "step_size": 0.01, "sqrt_beta_0": 0.3}
PEER_FLOW = {"n_lf": 3, "eps_lf": 0.01}
METRIC = {"temperature": 1.5, "regularization": 1e-3}
ONE_LAYER = {"name": "mlp", "hidden": [256]}
FIVE_LAYERS = {"name": "mlp", "hidden": [1000] * 5, "slope": 0.2}

PAIRS = (
    Pair("AE", "AE", bernoulli=False, heads=CODE),
    Pair("RAE", "RAE_L2", {"regularization": "l2"}, {}, False, heads=CODE),
    Pair(
        "RAE", "RAE_GP", {"regularization": "gp"}, {}, False, heads=CODE,
        note="Pythae penalises the gradient by x, through the encoder too",
    ),
    Pair("WAE", "WAE_MMD", {"weight": 10.0}, {"reg_weight": 10.0}, False, heads=CODE),
    Pair("VAE", "VAE"),
    Pair("BetaVAE", "BetaVAE", {"beta": 4.0}, {"beta": 4.0}),
    Pair(
        "DisentangledBetaVAE", "DisentangledBetaVAE",
        {"beta": 10.0, "capacity": 25.0, "warmup": 0},
        {"beta": 10.0, "C": 25.0, "warmup_epoch": 0},
    ),
    Pair("BetaTCVAE", "BetaTCVAE", {"beta": 6.0, "estimator": "mss"}, {"beta": 6.0}),
    Pair(
        "FactorVAE", "FactorVAE", {"gamma": 10.0, "discriminator": FIVE_LAYERS}, {"gamma": 10.0},
        note="discriminator of 5 x 1000; Pythae reconstructs half of each batch, ours all of it",
    ),
    Pair(
        "FactorVAE", "FactorVAE",
        {"gamma": 10.0, "discriminator": FIVE_LAYERS, "halved": True}, {"gamma": 10.0},
        note="discriminator of 5 x 1000; both reconstruct half of each batch",
    ),
    Pair("IWAE", "IWAE", {"num_samples": 10}, {"number_samples": 10}),
    Pair("MIWAE", "MIWAE", GROUPS, PEER_GROUPS),
    Pair("PIWAE", "PIWAE", GROUPS, PEER_GROUPS),
    Pair(
        "CIWAE", "CIWAE", {"num_samples": 10, "beta": 0.5}, {"number_samples": 10, "beta": 0.5}
    ),
    Pair("InfoVAE", "INFOVAE_MMD", {"alpha": 0.5, "weight": 10.0}, {"alpha": 0.5, "lbd": 10.0}),
    Pair("VAMP", "VAMP", {"num_pseudo_inputs": 50}, {"number_components": 50}),
    Pair("PlanarFlowVAE", "VAE_LinNF", {"flows": "PPPPP"}, {"flows": ["Planar"] * 5}),
    Pair(
        "IAFVAE", "VAE_IAF", {"num_flows": 2, "hidden": (128, 128, 128)},
        {"n_made_blocks": 2, "n_hidden_in_made": 3, "hidden_size": 128},
    ),
    Pair(
        "SVAE", "SVAE", heads={"embedding": 16, "log_concentration": 1},
        note="ours exact, in float64; Pythae's rejection drops a term of the gradient",
    ),
    Pair("PoincareVAE", "PoincareVAE", {"curvature": 1.0}, {"curvature": 1.0}),
    Pair(
        "HVAE", "HVAE", FLOW, {**PEER_FLOW, "beta_zero": 0.09},
        note="Pythae cuts the gradients of the leapfrog",
    ),
    Pair(
        "HVAE", "HVAE", {**FLOW, "cut_gradients": True}, {**PEER_FLOW, "beta_zero": 0.09},
        note="both cut the gradients of the leapfrog",
    ),
    Pair(
        "RHVAE", "RHVAE", {**FLOW, **METRIC}, {**PEER_FLOW, **METRIC, "beta_zero": 0.3},
        note="Pythae cuts the gradients of the implicit steps",
    ),
    Pair(
        "AAE", "Adversarial_AE", {"discriminator": ONE_LAYER}, note="discriminator of 256"
    ),
    Pair(
        "VAEGAN", "VAEGAN",
        {"discriminator": ONE_LAYER, "margin": 0.7},
        {"reconstruction_layer": 1, "margin": 9.0},
        note="discriminator of 256; margins such that every step updates all networks",
    ),
    Pair("MSSSIMVAE", "MSSSIM_VAE", note="scales and borders differ"),
    Pair(
        "VQVAE", "VQVAE", {"grid": (4, 4), "num_codes": 256, "decay": 0.99},
        {"num_embeddings": 256, "use_ema": True, "decay": 0.99},
        bernoulli=False, latent_dim=64, heads={"embedding": 64}, code_shape=(4, 4, 4),
    ),
)  # fmt: skip


def time_ours(pair: Pair, x: Tensor, hidden: tuple[int, ...]) -> float:
    """Return the seconds of an epoch of ours, all of `fit`."""
    model = pair.build(hidden)
    start = time.perf_counter()
    chartae.fit(model, x, epochs=1, batch_size=BATCH, learning_rate=1e-3, seed=0, progress=False)
    return time.perf_counter() - start


def time_peer(pair: Pair, x: Tensor, hidden: tuple[int, ...], fused: bool) -> float:
    """Return the seconds of an epoch of Pythae's."""
    return peer.train(pair.build_peer(hidden), x, epochs=1, batch_size=BATCH, fused=fused)


def measure(pair: Pair, x: Tensor, hidden: tuple[int, ...], rounds: int, fused: bool) -> Times:
    """Time both sides in turns, after a few batches that do not count."""
    contestants = {
        "ours": lambda x=x: time_ours(pair, x, hidden),
        "pythae": lambda x=x: time_peer(pair, x, hidden, fused),
    }
    for run in contestants.values():
        run(x[: 3 * BATCH])
    return interleave(contestants, rounds, warmup=0)


def row(pair: Pair, times: Times) -> str:
    """Return a line of the table."""
    low, middle, high = quartiles(times.ratios("pythae", "ours"))
    seconds = f"{times.median('ours'):.2f} | {times.median('pythae'):.2f}"
    ratio = f"**{middle:.1f}** ({low:.1f} to {high:.1f})"
    return f"| {pair.ours} | {pair.theirs} | {pair.settings} | {seconds} | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--models", nargs="*", help="our names or Pythae's; none is all of them")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--fused", action="store_true", help="fused Adam for Pythae too")
    parser.add_argument("--json", type=Path, help="write the seconds of every round to this file")
    arguments = parser.parse_args()
    known = {name for pair in PAIRS for name in (pair.ours, pair.theirs)}
    if unknown := set(arguments.models or ()) - known:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    chosen = [p for p in PAIRS if not arguments.models or {p.ours, p.theirs} & {*arguments.models}]
    warnings.filterwarnings("ignore", module="pythae")
    x = read_data(arguments.mnist, x_key="x_train").x[: arguments.images].round()
    x = x.reshape(-1, *SHAPE)
    print("; ".join(f"{name} {value}" for name, value in machine().items()))
    results = []
    for name in arguments.networks:
        print(f"\n{name}, {len(x):,} images, batch {BATCH}, seconds an epoch:\n")
        print("| model | Pythae 0.1.2 | settings | ours | Pythae's | Pythae's / ours |")
        print("|---|---|---|---|---|---|")
        for pair in chosen:
            times = measure(pair, x, NETWORKS[name], arguments.rounds, arguments.fused)
            print(row(pair, times), flush=True)
            results.append({"model": pair.ours, "networks": name, "seconds": times.seconds})
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
