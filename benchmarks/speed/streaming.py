"""Training on a set that stays on disk, against the same set in memory.

The speed is that of whole calls of `fit` on 10^6 images of 28 x 28 bytes, one epoch of a VAE
784-400-16 in batches of 100: from a memory map of an .npy file, and from a tensor of floats. Memory
is what training adds to the anonymous memory of a fresh process (RssAnon), whose pages cannot be
given back; pages of the mapped file are in the page cache, and the system takes them when it needs
them. Linux only.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from harness import Row, interleave, main
from plain import FEATURES, library_vae

import chartae
from chartae.data import StreamedDataset
from chartae.data.streamed import ArraySource

SAMPLES, BATCH, EPOCHS = 1_000_000, 100, 1
SIZES = (100_000, 1_000_000)
"""Of the sets whose memory is compared."""
MEBI = 2**20


def write_images(file: Path, count: int) -> None:
    """Write random images of few bright pixels, in parts."""
    images = np.lib.format.open_memmap(file, "w+", np.uint8, (count, FEATURES))
    rng = np.random.default_rng(0)
    for start in range(0, count, 10_000):
        stop = min(start + 10_000, count)
        images[start:stop] = 255 * (rng.random((stop - start, FEATURES)) < 0.2)
    images.flush()


def train(data: object) -> None:
    chartae.fit(library_vae(), data, epochs=EPOCHS, batch_size=BATCH, seed=0, progress=False)


def anonymous() -> int:
    """Return the bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith("RssAnon"))
    return 1024 * int(found.split()[1])


class Watched(ArraySource):
    """The rows of a file. Each time that some are read, memory is looked at."""

    peak = 0

    def read(self, rows: Sequence[int]) -> np.ndarray:
        self.peak = max(self.peak, anonymous())
        return super().read(rows)


def grown(file: Path) -> int:
    """Return what training on a file adds to the anonymous memory of this process, at its peak."""
    source = Watched(np.load(file, mmap_mode="r"))
    data = StreamedDataset.from_source(source)
    train(data.subset(range(10 * BATCH)))  # what libraries load at their first use
    before, source.peak = anonymous(), 0
    train(data)
    return source.peak - before


def measure(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        files = {count: Path(folder) / f"{count}.npy" for count in {*SIZES, SAMPLES}}
        for count, file in files.items():
            write_images(file, count)
        return [speed(files[SAMPLES], rounds), memory(*(files[count] for count in SIZES))]


def speed(file: Path, rounds: int) -> Row:
    mapped = np.load(file, mmap_mode="r")
    in_memory = torch.from_numpy(np.array(mapped)).float() / 255.0
    contestants = {"streamed": lambda: train(mapped), "in memory": lambda: train(in_memory)}
    for data in (mapped[: 100 * BATCH], in_memory[: 100 * BATCH]):  # a whole round takes long
        train(data)
    times = interleave(contestants, rounds, warmup=0)
    rate = {name: EPOCHS * SAMPLES / times.median(name) for name in contestants}
    return Row(
        f"VAE 784-400-16, batch {BATCH}, {SAMPLES:,} images of bytes on disk: speed",
        "the same images as floats in memory",
        times.ratios("in memory", "streamed"),
        0.8,
        detail=f"{rate['streamed']:,.0f} against {rate['in memory']:,.0f} images/s",
    )


def memory(small: Path, large: Path) -> Row:
    growth = [_in_a_process(file) / MEBI for file in (small, large)]
    return Row(
        f"memory that training on {SIZES[1]:,} images adds",
        f"training on {SIZES[0]:,}",
        [growth[1] - growth[0]],
        64.0,
        "<=",
        " MiB more",
        detail=f"{growth[1]:.0f} against {growth[0]:.0f} MiB; in memory the images take "
        f"{4 * FEATURES * SIZES[1] / MEBI:,.0f} MiB",
    )


def _in_a_process(file: Path) -> int:
    command = [sys.executable, __file__, "--grown", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    if "--grown" in sys.argv:
        print(json.dumps(grown(Path(sys.argv[-1]))))
    else:
        main(measure, rounds=3)
