"""Samples/s of a convolutional VAE with one process and with two, side by side.

Each training is a run of this script in processes of its own, with one thread each. Only the epochs
after the first are timed: starting processes is not. The set is the same, and so is the number of
samples in a step: two processes take half of it each.

    python benchmarks/speed/processes.py --devices 2 --accelerator cuda

compares one device with two others. The load of the machine is printed beside the figures, because
other work on the same cores decides them.
"""

import argparse
import os
import statistics
import subprocess
import sys

import torch

import chartae

SHAPE, SAMPLES, BATCH, EPOCHS = (1, 32, 32), 2048, 128, 4


def train(devices: int, accelerator: str) -> None:
    """Train, and print the samples/s of each epoch but the first."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.rand(SAMPLES, *SHAPE)
    model = chartae.VAE(SHAPE, 16, encoder="conv", decoder="conv", likelihood="bernoulli")
    history = chartae.fit(
        model,
        x,
        epochs=EPOCHS,
        batch_size=BATCH // devices,
        devices=devices,
        accelerator=accelerator,
        seed=0,
        progress=False,
    )
    if chartae.training.is_first_process():
        print(*(SAMPLES / seconds for seconds in history.seconds[1:]))


def measure(devices: int, accelerator: str) -> list[float]:
    """Return samples/s of the epochs of a training in other processes."""
    command = [sys.executable, __file__, "--train", str(devices), "--accelerator", accelerator]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=2, help="to compare with one; default 2")
    parser.add_argument("--accelerator", default="cpu", help="default cpu")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        train(given.train, given.accelerator)
        return
    rates: dict[int, list[float]] = {1: [], given.devices: []}
    for _ in range(given.rounds):
        for devices, found in rates.items():
            found += measure(devices, given.accelerator)
    one, several = (statistics.median(found) for found in rates.values())
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"conv VAE {SHAPE}, {BATCH} samples a step, {given.accelerator}: median samples/s")
    print(f"1 process     {one:10,.0f}")
    print(f"{given.devices} processes   {several:10,.0f}   {several / one:.2f} x")
    print(f"{os.cpu_count()} cores, load {load}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
