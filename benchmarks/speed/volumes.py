"""Volumes: training at 32^3, peak memory of a step and time of samples at 84 x 104 x 89.

The large size is that of the thesis' down-sampled ADNI, 777,504 voxels. Each peak is that of a
process of its own, above what the process has before the step. Seconds are those of the CPU, in
one thread.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from harness import Row, main

import chartae
from chartae.data import phantom_heads
from chartae.samplers import NormalSampler

ADNI = (1, 84, 104, 89)
LATENT_DIM, COUNT, HEADS, BATCH = 8, 50, 100, 4
REACH = 10.0
"""Seconds for 50 samples; the thesis gives 30 on 6 cores."""
CHANNELS = (16, 32, 64, 128)
"""Four layers at the large size: with three, dense layers have most of the weights."""
NETWORKS = ("conv", "resnet")


def vae(network: str, recompute: bool = False) -> chartae.VAE:
    torch.manual_seed(0)
    shared = {"name": network, "recompute": recompute}
    encoder, decoder = (shared | {"channels": c} for c in (CHANNELS, CHANNELS[::-1]))
    return chartae.VAE(ADNI, LATENT_DIM, encoder=encoder, decoder=decoder)


def sample_seconds(rounds: int) -> list[float]:
    sampler = NormalSampler(vae("conv").eval()).fit()
    found = []
    for seed in range(rounds):
        start = time.process_time()
        sampler.sample(COUNT, seed=seed)
        found.append(time.process_time() - start)
    return found


def epoch_seconds(model: type[chartae.VAE], rounds: int) -> list[float]:
    data, _ = phantom_heads(HEADS)
    networks = dict.fromkeys(("encoder", "decoder"), "conv3d")
    networks |= {"metric_network": "conv3d"} if model is chartae.RHVAE else {}
    found = []
    for seed in range(rounds):
        made = model(data.input_shape, LATENT_DIM, **networks)
        start = time.process_time()
        chartae.fit(made, data, epochs=3, batch_size=10, seed=seed, progress=False)
        found.append((time.process_time() - start) / 3)
    return found


def step(network: str, recompute: bool) -> tuple[float, float]:
    """Return the peak memory of a training step in MiB, and its seconds."""
    torch.set_num_threads(1)
    model = vae(network, recompute).train()
    x = torch.rand(BATCH, *ADNI)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what was done before
    before = _peak()
    start = time.process_time()
    sum(model.loss(x).objectives.values()).backward()
    return _peak() - before, time.process_time() - start


def _peak() -> float:
    """Return the peak memory of this process in MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def steps(network: str, recompute: bool, rounds: int) -> list[tuple[float, float]]:
    found = []
    for _ in range(rounds):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found.append(pool.submit(step, network, recompute).result())
    return found


def measure(rounds: int) -> list[Row]:
    seconds = sample_seconds(rounds)
    rows = [
        Row(
            f"{COUNT} samples of 84 x 104 x 89",
            "the reach",
            seconds,
            REACH,
            "<=",
            " s",
            f"an untrained VAE with convolutions of {CHANNELS}, sampled from its prior",
        )
    ]
    for model in (chartae.VAE, chartae.RHVAE):
        rows.append(
            Row(
                f"an epoch of {HEADS} heads of 32 x 32 x 32, {model.__name__}",
                "",
                epoch_seconds(model, rounds),
                None,
                unit=" s",
                detail="conv3d networks, batches of 10",
            )
        )
    for network in NETWORKS:
        plain, again = (steps(network, recompute, rounds) for recompute in (False, True))
        ratios = [a[0] / p[0] for a, p in zip(again, plain, strict=True)]
        texts = [
            f"{name} {sorted(m for m, _ in part)[len(part) // 2]:.0f} MiB and "
            f"{sorted(s for _, s in part)[len(part) // 2]:.2f} s"
            for name, part in (("without", plain), ("with", again))
        ]
        rows.append(
            Row(
                f"peak memory of a step with recompute, {network} at 84 x 104 x 89",
                "without",
                ratios,
                None,
                detail=f"{BATCH} volumes: {', '.join(texts)}",
            )
        )
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(measure, rounds=3)
