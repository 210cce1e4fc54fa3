"""log p(x) of 200 points by 200 importance samples each; and its memory for ever more samples.

The hand-written loop decodes all samples of a few points at once; the number of points is the
fastest of those tried here (`CHUNK`). Memory is the peak of a process of its own, above what it was
before the call.
"""

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from harness import Row, interleave, main
from plain import PlainVAE, binary_data, library_vae
from torch import Tensor
from torch.nn.functional import softplus

POINTS, SAMPLES, CHUNK = 200, 200, 20
MEMORY_POINTS, MEMORY_SAMPLES = 20, (200, 2_000, 20_000)


@torch.no_grad()
def by_hand(model: PlainVAE, x: Tensor, num_samples: int) -> Tensor:
    loc, scale = model.encode(x)
    results = []
    for i in range(0, len(x), CHUNK):
        few = x[i : i + CHUNK]
        noise = torch.randn(num_samples, len(few), loc.shape[-1])
        z = loc[i : i + CHUNK] + scale[i : i + CHUNK] * noise
        logits = model.decoder(z)
        log_p_x = (few * logits - softplus(logits)).sum(-1)
        log_ratio = (0.5 * (noise.square() - z.square()) + scale[i : i + CHUNK].log()).sum(-1)
        results.append((log_p_x + log_ratio).logsumexp(0) - math.log(num_samples))
    return torch.cat(results)


def measure(rounds: int) -> list[Row]:
    x = binary_data(POINTS)
    model = library_vae().eval()
    plain = PlainVAE().copy_weights_of(model)
    difference = by_hand(plain, x, SAMPLES) - model.log_likelihood(x, SAMPLES)
    assert difference.abs().mean() < 1.0, "the two loops do not compute the same thing"

    def ours() -> None:
        model.log_likelihood(x, SAMPLES)

    def hand_written() -> None:
        by_hand(plain, x, SAMPLES)

    times = interleave({"by hand": hand_written, "ours": ours}, rounds, warmup=2)
    seconds = {name: 1e3 * times.median(name) for name in times.seconds}
    return [
        Row(
            "log_likelihood, 200 points x 200 samples: speed",
            "hand-written batched loop",
            times.ratios("by hand", "ours"),
            0.9,
            detail=f"{seconds['ours']:.0f} against {seconds['by hand']:.0f} ms",
        ),
        *_memory_rows(),
    ]


def _memory_rows() -> list[Row]:
    if not Path("/proc/self/clear_refs").exists():
        print("the peak of memory is measured on Linux only", file=sys.stderr)
        return []
    # The allocator's luck moves one peak by 16 MiB: the median of 5.
    peaks = {
        samples: statistics.median(_peak_of_subprocess(samples) for _ in range(5))
        for samples in MEMORY_SAMPLES
    }
    in_words = ", ".join(f"{peak:.0f} MiB for {samples:,}" for samples, peak in peaks.items())
    return [
        Row(
            "log_likelihood, 20 points: peak memory of 20,000 samples",
            "of 2,000 samples",
            [peaks[20_000] / peaks[2_000]],
            1.25,
            "<=",
            detail=f"above what the process had: {in_words} samples",
        )
    ]


def _peak_of_subprocess(samples: int) -> float:
    command = [sys.executable, __file__, "--memory", str(samples)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output))


def _print_peak(samples: int) -> None:
    """Print by how many MiB one call raises the memory of this process at its peak."""
    x = binary_data(MEMORY_POINTS)
    model = library_vae().eval()
    model.log_likelihood(x[:1], 2)
    # The peak so far is the imports'; and `resource.getrusage` even counts the parent's.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    model.log_likelihood(x, samples)
    print(json.dumps(_peak() - before))


def _peak() -> float:
    """Return the peak resident memory of this process since it was last cleared, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        _print_peak(int(sys.argv[2]))
    else:
        main(measure, rounds=15)
