"""An epoch of the RHVAE, 200 samples, d = 10, K = 3: chartae's exact flow, Pythae's truncated one.

Both have the thesis' networks (encoder, decoder and metric network with 400 hidden units), its
hyper-parameters, the same data and batches. Ours draws the true momentum, iterates its implicit
steps, and differentiates through all of them; Pythae cuts those gradients. The time of `fit` is
taken whole; of Pythae's trainer, the epochs alone (`peer.train`).
"""

import peer
import torch
from harness import Row, interleave, main
from plain import FEATURES, binary_data

import chartae

SAMPLES, LATENT_DIM, EPOCHS = 200, 10, 10


def measure(rounds: int) -> list[Row]:
    x = binary_data(SAMPLES)
    return [
        _row(x, batch_size=100, rounds=rounds, reach=3.0),
        _row(x, batch_size=200, rounds=rounds, reach=None),
    ]


def _row(x: torch.Tensor, batch_size: int, rounds: int, reach: float | None) -> Row:
    def ours() -> None:
        model = chartae.RHVAE(
            (FEATURES,),
            LATENT_DIM,
            encoder="thesis/mnist",
            decoder="thesis/mnist",
            metric_network="thesis/mnist",
            likelihood="bernoulli",
            num_leapfrog=3,
            step_size=0.01,
            sqrt_beta_0=0.3,
            temperature=1.5,
            regularization=1e-3,
        )
        chartae.fit(
            model,
            x,
            epochs=EPOCHS,
            batch_size=batch_size,
            learning_rate=1e-3,
            seed=0,
            progress=False,
        )

    def pythae() -> float:
        config = peer.RHVAEConfig(
            input_dim=(FEATURES,),
            latent_dim=LATENT_DIM,
            reconstruction_loss="bce",
            n_lf=3,
            eps_lf=0.01,
            beta_zero=0.3,  # used as its square root
            temperature=1.5,
            regularization=1e-3,
        )
        model = peer.RHVAE(
            config,
            encoder=peer.Encoder(FEATURES, LATENT_DIM),
            decoder=peer.Decoder(FEATURES, LATENT_DIM),
        )
        return peer.train(model, x, epochs=EPOCHS, batch_size=batch_size)

    times = interleave({"pythae": pythae, "ours": ours}, rounds)
    per_epoch = {name: 1e3 * times.median(name) / EPOCHS for name in times.seconds}
    return Row(
        f"RHVAE epoch, 200 samples, d = 10, K = 3, batch {batch_size}: speed",
        "Pythae 0.1.2 (truncated gradients)",
        times.ratios("pythae", "ours"),
        reach,
        detail=f"{per_epoch['ours']:.1f} against {per_epoch['pythae']:.1f} ms an epoch",
    )


if __name__ == "__main__":
    main(measure, rounds=7)
