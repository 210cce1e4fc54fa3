"""`FlowVAE`: a training step, the flow in time, many visits, and imputation.

* A training step on 64 individuals with 10 visits of 28 x 28, against a VAE with the same networks
  on 640 images. Loss, gradients and Adam are timed. No visit is hidden in training, so that both
  decode as many images (`hidden_share`; the default hides some, and is faster).
* Latents of 64 individuals from their 10th visit back to u and forward to all 10 visits: one flow
  with the time as context, against the thesis' stack of inverse autoregressive flows.
* A training step on 16 individuals with 40 visits, against 64 with 10.
* Imputation of 1,000 individuals with 10 visits of 28 x 28, half of them hidden, 16 draws each, in
  a process of its own, whose peak of memory is measured beside the size of what it returns.

All contestants of a row take turns in one process. Times are those of the processor (user and
system, over all threads), so that other work on the machine changes them little; with one thread
they are the time on a free machine. Imputation, too, has one thread: on two free cores it takes no
longer. Two threads that wait for each other on a busy machine would count the waiting.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from harness import Row, interleave, main
from torch import Tensor

import chartae
from chartae.data import Sequences
from chartae.longitudinal import FlowVAE
from chartae.longitudinal.time_flows import TimeFlow, make_time_flow
from chartae.models import Autoencoder

SHAPE, LATENTS, VISITS, IMAGES = (28, 28), 16, 10, 640
STEPS = 5
INDIVIDUALS, DRAWS = 1_000, 16


def flow_vae(hidden_share: float = 0.0) -> FlowVAE:
    torch.manual_seed(0)
    return FlowVAE(SHAPE, LATENTS, likelihood="bernoulli", hidden_share=hidden_share)


def batch(visits: int) -> dict[str, Tensor]:
    """Return a batch of `IMAGES` images in all, all observed, at irregular times."""
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES // visits, visits)
    return {
        "x": torch.rand(*shape, *SHAPE, generator=generator),
        "times": torch.rand(shape, generator=generator, dtype=torch.float64).sort(1).values,
        "observed": torch.ones(shape, dtype=torch.bool),
    }


def training(model: Autoencoder, given: dict[str, Tensor]) -> Callable[[], float]:
    """Return a contestant: processor seconds of a few training steps."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    model.train()

    def steps() -> float:
        start = time.process_time()
        for _ in range(STEPS):
            optimizer.zero_grad()
            model.loss(**given).objectives["model"].backward()
            optimizer.step()
        return time.process_time() - start

    return steps


@torch.no_grad()
def course(flow: TimeFlow) -> Callable[[], float]:
    """Return a contestant: seconds of all latents of 64 individuals from those of a last visit."""
    count = 64
    z = torch.randn(count, LATENTS)
    last = torch.full((count,), float(VISITS - 1))
    owner = torch.arange(count).repeat_interleave(VISITS)
    times = torch.arange(float(VISITS)).repeat(count)

    def there_and_back() -> float:
        start = time.process_time()
        with torch.no_grad():
            u, _ = flow.inverse(z, last)
            flow.along(u, owner, times)
        return time.process_time() - start

    return there_and_back


def measure(rounds: int) -> list[Row]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae = chartae.VAE(SHAPE, LATENTS, likelihood="bernoulli")
    steps = interleave(
        {
            "vae": training(vae, {"x": batch(VISITS)["x"].flatten(0, 1)}),
            "flow": training(flow_vae(), batch(VISITS)),
            "hidden": training(flow_vae(0.5), batch(VISITS)),
            "long": training(flow_vae(), batch(4 * VISITS)),
        },
        rounds,
        warmup=2,
    )
    chain = make_time_flow({"name": "chain", "num_times": VISITS}, LATENTS)
    courses = interleave(
        {"time": course(make_time_flow("time", LATENTS)), "chain": course(chain)},
        rounds,
        warmup=2,
    )
    each = {name: 1e3 * steps.median(name) / STEPS for name in steps.seconds}
    both = {name: 1e3 * courses.median(name) for name in courses.seconds}
    return [
        Row(
            "FlowVAE, training step, 64 x 10 images of 28 x 28: time",
            "VAE, 640 images",
            steps.ratios("flow", "vae"),
            1.3,
            "<=",
            detail=f"{each['flow']:.1f} against {each['vae']:.1f} ms, on one thread; "
            f"{each['hidden']:.1f} ms with hidden_share=0.5",
        ),
        Row(
            "latents from the 10th visit back and forward, flow='time': speed",
            "flow='chain' of inverse autoregressive flows",
            courses.ratios("chain", "time"),
            15.0,
            detail=f"{both['time']:.2f} against {both['chain']:.1f} ms, 64 individuals, d = 16, "
            "on one thread",
        ),
        Row(
            "FlowVAE, training step, 16 x 40 images: time",
            "64 x 10 images",
            steps.ratios("long", "flow"),
            1.2,
            "<=",
            detail=f"{each['long']:.1f} against {each['flow']:.1f} ms, on one thread",
        ),
        *imputation_rows(),
    ]


def imputation_rows() -> list[Row]:
    command = [sys.executable, __file__, "--impute"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(output)
    size = f"{found['result']:.0f} MiB are the result"
    return [
        Row(
            f"imputation of {INDIVIDUALS:,} x {VISITS} images, {DRAWS} draws: time",
            "seconds of the processor, one thread",
            [found["processor"]],
            20.0,
            "<=",
            unit=" s",
            detail=f"{found['clock']:.1f} s by the clock, which counts other work on the machine",
        ),
        Row(
            "the same: peak memory above the result",
            "",
            [found["peak"] - found["result"]] if "peak" in found else [],
            None,
            unit=" MiB",
            detail=f"above what the process had; {size}",
        ),
    ]


def print_imputation() -> None:
    """Impute half of the visits, and print seconds and MiB."""
    torch.set_num_threads(1)
    x = torch.rand(INDIVIDUALS, VISITS, *SHAPE, generator=torch.Generator().manual_seed(0))
    data = Sequences(x, times=torch.arange(float(VISITS))).hidden(visits=0.5)
    model = flow_vae().eval()
    model.impute(data.subset([0, 1]), num_draws=DRAWS)
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")  # forget the peak of the imports

    def peak() -> float:
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    before = peak() if clear.exists() else 0.0
    start, busy = time.perf_counter(), time.process_time()
    draws = model.impute(data, num_draws=DRAWS)
    found = {
        "clock": time.perf_counter() - start,
        "processor": time.process_time() - busy,
        "result": draws.values.nbytes / 2**20,
    }
    if clear.exists():
        found["peak"] = peak() - before
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--impute"]:
        print_imputation()
    else:
        main(measure, rounds=11)
