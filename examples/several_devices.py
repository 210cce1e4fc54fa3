"""A VAE of the digits, trained by as many processes as you ask for.

    python examples/several_devices.py --devices 2
    torchrun --nproc-per-node 2 examples/several_devices.py --devices 2

See docs/scaling.md for several machines. Everything here runs in every process: each builds the
same model and reads the same data. What only one process should do is under `is_first_process`.
"""

import argparse

import torch

import chartae
from chartae.data import digits, held_out_split
from chartae.training import is_first_process


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=1, help="on each machine; default 1")
    parser.add_argument("--nodes", type=int, default=1, help="machines; default 1")
    parser.add_argument("--accelerator", default="cpu", help="cpu, the default, or cuda")
    parser.add_argument("--epochs", type=int, default=20, help="default 20")
    parser.add_argument("--out", default="digits-vae", help="a folder that all machines share")
    given = parser.parse_args()

    learned, held_out = held_out_split(digits(), 0.2, seed=0)
    torch.manual_seed(0)
    model = chartae.VAE((8, 8), latent_dim=8, likelihood="bernoulli")
    history = chartae.fit(
        model,
        learned,
        held_out,
        epochs=given.epochs,
        batch_size=64 // (given.devices * given.nodes),
        devices=given.devices,
        nodes=given.nodes,
        accelerator=given.accelerator,
        seed=0,
        output_dir=given.out,
        resume=True,
    )
    if is_first_process():
        loss = history.validation["loss"][history.best_epoch]
        print(f"{history.num_epochs} epochs, best loss {loss:.4f} in {given.out}")


if __name__ == "__main__":
    main()
