"""Trainings that tests run in one process and in several: `python several.py WHAT FOLDER`.

Each process writes its results to FOLDER. Noise is constant where it is to be that of one process.
"""

import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import torch

import chartae
from chartae.longitudinal import FlowVAE
from chartae.training import Callback, History, is_first_process, loop, trainer

SMALL = {"name": "mlp", "hidden": [8]}
X = torch.rand(37, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MASK = torch.rand(37, 6, generator=torch.Generator().manual_seed(1)) < 0.7
WEIGHT = 0.1 + 3.0 * torch.rand(37, generator=torch.Generator().manual_seed(2), dtype=X.dtype)
Y = torch.arange(37) % 3
VISITS = torch.rand(37, 4, 6, generator=torch.Generator().manual_seed(3), dtype=X.dtype)
TIMES = torch.rand(37, 4, generator=torch.Generator().manual_seed(4), dtype=X.dtype).cumsum(1)
OBSERVED = torch.arange(4) < 2 + torch.arange(37)[:, None] % 3


def build(name, *, latent_dim=2, dtype=X.dtype, **options):
    torch.manual_seed(0)
    kind = FlowVAE if name == "FlowVAE" else getattr(chartae, name)
    return kind((6,), latent_dim, encoder=SMALL, decoder=SMALL, **options).to(dtype)


CASES = {
    "AE": ({}, {"x": X}),
    "VAE": ({}, {"x": X}),
    "VAE of float32": ({"dtype": torch.float32}, {"x": X.float()}),
    "VAE of weights": ({}, {"x": X, "weight": WEIGHT}),
    "VAE of masks": ({}, {"x": X, "mask": MASK, "weight": WEIGHT}),
    "CVAE": ({"conditions": 3}, {"x": X, "y": Y}),
    "IAFVAE": ({}, {"x": X}),
    "IWAE": ({}, {"x": X}),
    "VQVAE": ({"latent_dim": 8, "num_codes": 16, "decay": 0.5}, {"x": X}),
    "VAMP": ({"num_pseudo_inputs": 3}, {"x": X}),
    "RHVAE": ({}, {"x": X}),
    "FlowVAE": ({"hidden_share": 0.0}, {"x": VISITS, "times": TIMES, "observed": OBSERVED}),
    "AAE": ({}, {"x": X}),
    "VAEGAN": ({"feature_scale": 0.5, "margin": 0.7}, {"x": X}),
    "PIWAE": ({}, {"x": X}),
}
"""Arguments of a model, and data, by the name of its class and of what is special."""
CODES = {"VQVAE"}
"""What replaces dead codes is random: here none dies."""
OF_BATCHES = {"RHVAE"}
"""The loss is not a mean over samples: the metric is that of the batch."""


def in_shares(model, processes):
    """Make the loss of a batch the mean over shares, as several processes compute it."""
    original = type(model).loss

    def loss(x):
        shares = x.tensor_split(processes)
        losses = [original(model, share) for share in shares]
        sizes = [len(share) / len(x) for share in shares]

        def mean(every):
            return {
                k: sum(n * each[k] for n, each in zip(sizes, every, strict=True)) for k in every[0]
            }

        objectives = mean([each.objectives for each in losses])
        return chartae.models.Losses(objectives, mean([each.terms for each in losses]))

    model.loss = loss


def constant_noise():
    """Return a context in which all random numbers are 0.5, whichever process draws them."""

    def half(*shape, generator=None, **options):
        return torch.full(shape if isinstance(shape[0], int) else shape[0], 0.5, **options)

    stack = ExitStack()
    for owner, name, constant in (
        (torch, "rand", half),
        (torch, "randn", half),
        (torch, "randn_like", lambda tensor: torch.full_like(tensor, 0.5)),
        (torch.Tensor, "normal_", lambda tensor, *_: tensor.fill_(0.5)),
    ):
        stack.enter_context(mock.patch.object(owner, name, constant))
    return stack


def train(case, *, processes, split=False, **options):
    """Train a case for three epochs, in steps of 8 samples of all processes."""
    arguments, data = CASES[case]
    model = build(case.split()[0], **arguments)
    if case in CODES:
        for level in model.quantizer.layers:
            level._codebook.threshold_ema_dead_code = 0
    if split:
        in_shares(model, split)
    with constant_noise():
        history = chartae.fit(
            model,
            data,
            None if case in OF_BATCHES else {k: v[:11] for k, v in data.items()},
            **{
                "epochs": 3,
                "batch_size": 8 // processes,
                "learning_rate": 1e-2,
                "seed": 0,
                "accelerator": "cpu",
                "devices": processes,
                "progress": False,
                **options,
            },
        )
    return history, model


def results(history, model):
    weights = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    return {
        "train": history.train,
        "validation": history.validation,
        "stopped": history.stopped,
        "weights": weights,
    }


def with_signal(model, step, number, rank):
    """Make the loss of a step of the training raise a signal in one process."""
    original, steps = model.loss, []

    def loss(x):
        if model.training:
            steps.append(1)
            if len(steps) == step and torch.distributed.get_rank() == rank:
                signal.raise_signal(number)
        return original(x)

    model.loss = loss


def long_training(folder, *, step=0, number=signal.SIGINT, rank=1):
    """Train for three epochs of 60 steps, with real noise; a signal may end it."""
    model = build("VAE")
    # Tests that run in the background of a script inherit that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if step:
        with_signal(model, step, number, rank)
    with mock.patch.object(trainer, "AGREE_EVERY", 0.0):  # after each step
        history = chartae.fit(
            model, X.repeat(4, 1)[:120], X, epochs=3, batch_size=1, seed=0, accelerator="cpu",
            devices=2, output_dir=folder, resume=True, checkpoint_interval=0.2, progress=False,
        )  # fmt: skip
    return history, model


def noise():
    """Return a number that each process draws in its first step."""
    model, drawn = build("VAE"), []
    original = model.loss
    model.loss = lambda x: drawn.append(torch.rand(()).item()) or original(x)
    chartae.fit(model, X, epochs=1, seed=0, accelerator="cpu", devices=2, progress=False)
    every = [None, None]
    torch.distributed.all_gather_object(every, drawn[0])
    return every


class Started(Callback):
    """Says in the folder that a training runs."""

    def __init__(self, folder):
        self.folder = folder

    def on_epoch_end(self, model, history):
        if history.num_epochs == 2:
            (self.folder / "started").touch()


class StopsAlone(Callback):
    def on_epoch_end(self, model, history):
        return torch.distributed.get_rank() == 1 and history.num_epochs == 2


def broken(case, how):
    """Train a case whose loss is NaN, or an error, in one process only, from its 7th step on."""
    model = build(case)
    original, steps = model.loss, []

    def loss(x):
        steps.append(1)
        losses = original(x)
        if len(steps) < 7 or torch.distributed.get_rank() == 0:
            return losses
        if how == "error":
            raise ZeroDivisionError("mine")
        terms = {**losses.terms, "kl": losses.terms["kl"] + torch.nan}
        return chartae.models.Losses(losses.objectives, terms)

    model.loss = loss
    chartae.fit(
        model, X, epochs=9, batch_size=4, seed=0, accelerator="cpu", devices=2, progress=False
    )


def main(what, folder, *arguments):
    done = {}
    if not is_first_process():
        for module, name in ((trainer, "write_state"), (loop, "save"), (History, "save")):
            mock.patch.object(module, name, side_effect=AssertionError("not the first")).start()
    if what == "cases":
        for case in CASES:
            done[case] = results(*train(case, processes=2))
        done["again"] = results(*train("VAE", processes=2))
        done["clipped"] = results(*train("AE", processes=2, clip_grad_norm=0.01))
        done["stopped alone"] = results(*train("VAE", processes=2, callbacks=[StopsAlone()]))
        done["patience"] = results(
            *train("VAE", processes=2, patience=1, epochs=50, learning_rate=0.5)
        )
        done["noise"] = noise()
        done["of one step"] = results(*train("AE", processes=2, batch_size=64))
    elif what == "long":
        done["long"] = results(*long_training(folder / "run"))
    elif what == "signal":
        step, number, rank = map(int, arguments)
        done["long"] = results(*long_training(folder / "run", step=step, number=number, rank=rank))
    elif what == "endless":
        train("VAE", processes=2, epochs=10**6, callbacks=[Started(folder)])
    elif what == "torchrun":
        devices, nodes = map(int, arguments)
        history, model = train("VAE", processes=2, devices=devices, nodes=nodes)
        done["VAE"] = results(history, model)
    elif what == "broken":
        broken("VAE", *arguments)
    elif what == "different data":
        torch.manual_seed(int(os.environ.get("LOCAL_RANK", "0")))
        x = torch.rand(9, 6, dtype=X.dtype)
        chartae.fit(build("VAE"), x, devices=2, accelerator="cpu", progress=False)
    rank = torch.distributed.get_rank()
    (folder / f"{rank}.json").write_text(json.dumps(done))


if __name__ == "__main__":
    what, folder, *arguments = sys.argv[1:]
    torch.set_num_threads(1)
    main(what, Path(folder), *arguments)
