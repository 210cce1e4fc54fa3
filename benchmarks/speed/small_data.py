"""500 epochs on 50 samples in one batch, where overhead counts: plain PyTorch, chartae.

chartae is timed around the whole call of `fit` (set-up, history, best weights kept), the progress
bar being off; the plain loop does nothing but train.
"""

from harness import Row, interleave, main
from plain import PlainVAE, binary_data, check_same_mathematics, library_vae, train

import chartae

SAMPLES, EPOCHS = 50, 500


def measure(rounds: int) -> list[Row]:
    x = binary_data(SAMPLES)
    check_same_mathematics(x)

    def ours() -> None:
        chartae.fit(
            library_vae(),
            x,
            epochs=EPOCHS,
            batch_size=SAMPLES,
            learning_rate=1e-3,
            seed=0,
            progress=False,
        )

    def plain() -> None:
        train(PlainVAE(), x, epochs=EPOCHS, batch_size=SAMPLES)

    times = interleave({"plain": plain, "ours": ours}, rounds)
    per_epoch = {name: 1e3 * times.median(name) / EPOCHS for name in times.seconds}
    return [
        Row(
            "500 epochs on 50 samples in one batch: time",
            "plain PyTorch loop",
            times.ratios("ours", "plain"),
            1.25,
            "<=",
            detail=f"{per_epoch['ours']:.2f} against {per_epoch['plain']:.2f} ms an epoch",
        )
    ]


if __name__ == "__main__":
    main(measure, rounds=15)
