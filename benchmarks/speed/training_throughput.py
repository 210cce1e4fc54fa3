"""Training a VAE 784-400-16 on 10,000 samples, batch 100: plain PyTorch, chartae, Pythae.

chartae is timed around the whole call of `fit`, set-up, history and best weights included, with its
default arguments but the progress bar off. The plain loop does nothing but train. Pythae's epochs
alone are timed (`peer.train`), with its default Adam and, for information, with the fused one.
"""

import peer
from harness import Row, interleave, main
from plain import (
    FEATURES,
    LATENT_DIM,
    PlainVAE,
    binary_data,
    check_same_mathematics,
    library_vae,
    train,
)

import chartae

SAMPLES, BATCH, EPOCHS = 10_000, 100, 3


def measure(rounds: int) -> list[Row]:
    x = binary_data(SAMPLES)
    check_same_mathematics(x[:BATCH])

    def ours() -> None:
        chartae.fit(
            library_vae(),
            x,
            epochs=EPOCHS,
            batch_size=BATCH,
            learning_rate=1e-3,
            seed=0,
            progress=False,
        )

    def plain() -> None:
        train(PlainVAE(), x, epochs=EPOCHS, batch_size=BATCH)

    def pythae(fused: bool) -> float:
        config = peer.VAEConfig((FEATURES,), LATENT_DIM, reconstruction_loss="bce")
        encoder = peer.Encoder(FEATURES, LATENT_DIM)
        decoder = peer.Decoder(FEATURES, LATENT_DIM)
        model = peer.VAE(config, encoder=encoder, decoder=decoder)
        # One epoch a round is enough: it is timed by itself, and slow.
        return EPOCHS * peer.train(model, x, epochs=1, batch_size=BATCH, fused=fused)

    contestants = {
        "plain": plain,
        "ours": ours,
        "pythae": lambda: pythae(fused=False),
        "pythae, fused Adam": lambda: pythae(fused=True),
    }
    times = interleave(contestants, rounds)
    rate = {name: EPOCHS * SAMPLES / times.median(name) for name in contestants}
    what = "VAE 784-400-16, batch 100, 10k samples: samples/s"

    def row(name: str, against: str, reach: float | None) -> Row:
        detail = f"{rate['ours']:,.0f} against {rate[name]:,.0f} samples/s"
        return Row(what, against, times.ratios(name, "ours"), reach, detail=detail)

    return [
        row("plain", "tightest plain PyTorch loop, fused Adam", 0.9),
        row("pythae", "Pythae 0.1.2", 15.0),
        row("pythae, fused Adam", "Pythae 0.1.2 told to use fused Adam", None),
    ]


if __name__ == "__main__":
    main(measure, rounds=7)
