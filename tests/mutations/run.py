"""Check that the tests catch faults: break one line of the library at a time, and run some tests.

    python tests/mutations/run.py               # all faults
    python tests/mutations/run.py samplers data # those of files whose path contains a word

It prints each fault as caught (a test failed) or MISSED (all passed), and exits 1 if any was
missed. The library is broken in a temporary copy only. It takes about ten minutes and is no part of
the suite: run it by hand after tests were removed or moved. A fault whose line has changed stops
the script, and fails a test of the suite (tests/test_mutations.py).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALL_PASSED, SOME_FAILED = 0, 1  # exit codes of pytest


@dataclass(frozen=True)
class Fault:
    """A text of a file below ``src/chartae``, what replaces it, and the tests that should fail."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, package: Path) -> None:
        """Write the fault into a copy of the package.

        Raises:
            SystemExit: if the text is not there exactly once.
        """
        path = package / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (found := text.count(self.old)) != 1:
            raise SystemExit(f"{self.file} has {self.old!r} {found} times: expected once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")

    def __str__(self) -> str:
        return f"{self.file}: {self.old}  ->  {self.new or '(nothing)'}"


OBJECTIVES = "tests/models/test_objectives.py"

FAULTS = (
    # --- data -------------------------------------------------------------------------------
    Fault(
        "data/images.py",
        "image / float(np.iinfo(image.dtype).max)",
        "image / float(np.iinfo(image.dtype).max + 1)",
        ("tests/data/test_images.py::test_sixteen_bits_are_divided_by_65535",),
    ),
    Fault(
        "data/splits.py",
        "held_out[pool[: min(share, len(pool) - 1)]] = True",
        "held_out[pool[:share]] = True",
        ("tests/data/test_splits.py::test_every_class_keeps_a_sample_for_training",),
    ),
    Fault(
        "data/arrays.py",
        "return (x.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)",
        "return (x.clamp(0.0, 1.0) * 255.0).to(torch.uint8)",
        ("tests/data/test_images.py::test_values_are_rounded_to_the_nearest_level",),
    ),
    # --- nn ---------------------------------------------------------------------------------
    Fault(
        "nn/metric.py",
        "scale = (log_diagonal - log_diagonal.mean(-1, keepdim=True)).exp()",
        "scale = log_diagonal.exp()",
        ("tests/models/test_rhvae.py::test_matrices_have_determinant_one_and_bounded_eigenvalues",),
    ),
    Fault(
        "nn/distances.py",
        "C1, C2 = 0.01**2, 0.03**2",
        "C1, C2 = 0.03**2, 0.01**2",
        ("tests/models/test_distance.py::test_it_is_the_published_index_and_so_is_its_gradient",),
    ),
    # --- distributions ----------------------------------------------------------------------
    Fault(
        "distributions/normal.py",
        "(loc.square() + scale.square() - 1.0) - scale.log()",
        "(loc.square() + scale - 1.0) - scale.log()",
        ("tests/distributions/test_normal.py",),
    ),
    Fault(
        "distributions/aggregate.py",
        "(size - others) / (size * others)",
        "(size - batch) / (size * others)",
        ("tests/models/test_total_correlation.py::test_weights_are_those_of_chen_et_al",),
    ),
    Fault(
        "distributions/mixture.py",
        'torch.float32 if value.device.type == "mps" else torch.float64',
        "torch.float32",
        ("tests/distributions/test_mixture.py::test_float32_is_as_good_as_its_inputs",),
    ),
    Fault(
        "distributions/bounded.py",
        "half = 0.5 / (self.levels - 1)",
        "half = 0.5 / self.levels",
        ("tests/distributions/test_likelihoods.py",),
    ),
    Fault(
        "distributions/moments.py",
        "gap.square() * self.count * share",
        "gap.square() * share",
        ("tests/distributions/test_moments.py", "tests/models/test_units.py"),
    ),
    Fault(
        "distributions/ball.py",
        "volume = (v.shape[-1] - 1) * _log_sinhc",
        "volume = v.shape[-1] * _log_sinhc",
        ("tests/distributions/test_ball.py",),
    ),
    Fault(
        "distributions/discrete.py",
        "logits=log_mean.double() - size.log()",
        "logits=log_mean.double() + size.log()",
        ("tests/distributions/test_discrete.py",),
    ),
    # --- geometry ---------------------------------------------------------------------------
    Fault(
        "geometry/metrics/centroid.py",
        "self.scale = 1.0 / metric.temperature**2",
        "self.scale = 1.0 / metric.temperature",
        ("tests/geometry/test_metrics.py::test_closed_forms_against_autograd",),
    ),
    Fault(
        "geometry/metrics/posterior.py",
        "times(moments[:, :p], offset) - moments[:, p:]",
        "times(moments[:, :p], offset) + moments[:, p:]",
        ("tests/geometry/test_posterior.py::test_closed_forms_against_autograd",),
    ),
    Fault(
        "geometry/paths/exponential.py",
        "change: Tensor = 0.5 * (along[0] - along[1] + slope)",
        "change: Tensor = 0.5 * (along[0] + along[1] + slope)",
        ("tests/geometry/test_exponential.py::test_the_holonomy_of_a_circle_is_the_area_inside",),
    ),
    Fault(
        "geometry/mcmc/hmc.py",
        "(eps if step < num_leapfrog - 1 else 0.5 * eps)",
        "eps",
        ("tests/geometry/test_mcmc.py::test_the_energy_is_kept_as_the_steps_shrink",),
    ),
    Fault(
        "geometry/mcmc/walk.py",
        "correction = law.log_prob(metric.at(proposal), arriving)",
        "correction = law.log_prob(start, arriving)",
        ("tests/geometry/test_random_walk.py",),
    ),
    Fault(
        "geometry/mcmc/driver.py",
        "split = torch.cat([samples[:half], samples[-half:]], dim=1)",
        "split = torch.cat([samples[:half], samples[:half]], dim=1)",
        ("tests/geometry/test_mcmc.py::test_r_hat",),
    ),
    Fault(
        "geometry/statistics/means.py",
        "return weights / weights.sum(-1, keepdim=True)",
        "return torch.ones_like(weights) / weights.shape[-1]",
        ("tests/geometry/test_statistics.py",),
    ),
    # --- models: their objectives -----------------------------------------------------------
    Fault(
        "models/total_correlation.py",
        "(kl + self.gamma * correlation)",
        "(kl - self.gamma * correlation)",
        (OBJECTIVES,),
    ),
    Fault(
        "models/wae.py",
        "total = reconstruction + self.weight * divergence",
        "total = reconstruction + divergence",
        (OBJECTIVES,),
    ),
    Fault(
        "models/infovae.py",
        "-average(self.likelihood(z, y).log_prob",
        "-average(self.likelihood(z.detach(), y).log_prob",
        (OBJECTIVES,),
    ),
    Fault(
        "models/vae.py",
        "(kl - share * self.capacity).abs()",
        "(kl + share * self.capacity).abs()",
        (OBJECTIVES,),
    ),
    Fault(
        "models/iwae.py",
        "self.beta * log_weights.mean(0) + (1.0 - self.beta) * super().bound(log_weights)",
        "(1.0 - self.beta) * log_weights.mean(0) + self.beta * super().bound(log_weights)",
        (OBJECTIVES,),
    ),
    Fault(
        "models/vaegan.py",
        "(1.0 - alpha) * fit + alpha * deception",
        "alpha * fit + (1.0 - alpha) * deception",
        (OBJECTIVES,),
    ),
    Fault(
        "models/vaegan.py",
        "verdict > math.log(2.0) - self.margin",
        "verdict < math.log(2.0) - self.margin",
        ("tests/models/test_distance.py",),
    ),
    Fault(
        "models/vaegan.py",
        "num_features * share * variance",
        "num_features * variance",
        ("tests/models/test_distance.py",),
    ),
    Fault(
        "augmentation/results.py",
        "0.5 * (real - chance)",
        "0.5 * real",
        ("tests/augmentation/test_verdict.py",),
    ),
    Fault(
        "models/vqvae.py",
        "total = reconstruction + self.commitment * commitment",
        "total = reconstruction + commitment",
        (OBJECTIVES,),
    ),
    Fault(
        "models/rae.py",
        "embedding = 0.5 * average(z.square()",
        "embedding = average(z.square()",
        (OBJECTIVES,),
    ),
    # --- models: the rest -------------------------------------------------------------------
    Fault(
        "models/hvae.py",
        "(momentum + 0.5 * eps * grad) * (before / after)",
        "(momentum + 0.5 * eps * grad) * (after / before)",
        ("tests/models/test_flows.py::test_the_flow_preserves_volume",),
    ),
    Fault(
        "models/rhvae.py",
        "force = grad - local.log_volume_grad() - local.kinetic_grad(half)",
        "force = grad - local.log_volume_grad() + local.kinetic_grad(half)",
        ("tests/models/test_flows.py::test_the_flow_is_reversible_without_tempering",),
    ),
    # --- training ---------------------------------------------------------------------------
    Fault(
        "training/trainer.py",
        "[size / samples for size in at.sizes]",
        "[1.0 / len(at.sizes) for size in at.sizes]",
        ("tests/training/test_fit.py::test_terms_are_means_over_samples_of_uneven_batches",),
    ),
    Fault(
        "training/trainer.py",
        'stream = ("noise", at.epoch, self.processes.rank)',
        'stream = ("noise", 0, self.processes.rank)',
        ("tests/training/test_fit.py::test_each_epoch_has_its_own_noise",),
    ),
    Fault(
        "training/trainer.py",
        "min(1.0, epoch / self.plan.kl_warmup)",
        "min(1.0, (epoch + 1) / self.plan.kl_warmup)",
        ("tests/training/test_fit.py::test_kl_warmup",),
    ),
    Fault(
        "training/batches.py",
        'make_generator(seed, "order", epoch)',
        'make_generator(seed, "order")',
        ("tests/training/test_batches.py::test_the_order_depends_on_the_seed_and_the_epoch_only",),
    ),
    # --- samplers ---------------------------------------------------------------------------
    Fault(
        "samplers/two_stage.py",
        "return self.shift + self.spread * z",
        "return self.shift + z",
        (
            "tests/samplers/test_learned.py::test_a_second_stage_draws_from_the_aggregated_posterior",
        ),
    ),
    Fault(
        "samplers/flow.py",
        "return log_prob - self.spread.log().sum()",
        "return log_prob",
        (
            "tests/samplers/test_learned.py::test_a_flow_is_invertible_and_its_density_that_of_its_jacobian",
        ),
    ),
    Fault(
        "samplers/pixelcnn.py",
        "seen = layer.across(pad(above, (0, 0, 1, 0))[:, :, :-1])",
        "seen = layer.across(above)",
        ("tests/samplers/test_learned.py::test_no_code_depends_on_itself_or_later_ones",),
    ),
    Fault(
        "samplers/manifold.py",
        "generator = make_generator(seed, name, done, device=device)",
        "generator = make_generator(seed, name, device=device)",
        (
            "tests/samplers/test_samplers.py::test_volume_sampler_works_in_blocks_and_keeps_its_diagnostics",
        ),
    ),
    # --- augmentation -----------------------------------------------------------------------
    Fault(
        "augmentation/augmenter.py",
        'return draw(sampler, n, derive_seed(seed, "class", name), y)',
        "return draw(sampler, n, seed, y)",
        ("tests/augmentation/test_augmenter.py::test_classes_of_the_same_data_share_no_noise",),
    ),
    Fault(
        "evaluation/neighbours.py",
        "squares.scatter_(1, themselves[rows, None], math.inf)",
        "squares.scatter_(1, rows[:, None], math.inf)",
        (
            "tests/augmentation/test_fidelity.py::test_some_of_many_real_examples_are_compared_to_all_others",
        ),
    ),
    Fault(
        "augmentation/study_runs.py",
        "each = (1.0 - inputs.real_share) / inputs.real_share * len(x) / len(x_new)",
        "each = inputs.real_share / (1.0 - inputs.real_share) * len(x) / len(x_new)",
        ("tests/augmentation/test_study.py::test_real_share_protects_from_bad_data",),
    ),
    # --- report, command, persistence, randomness -------------------------------------------
    Fault(
        "report/latent.py",
        "reach = half * resolution / (resolution - 1)",
        "reach = half",
        ("tests/report/test_figures.py::TestLatentMap",),
    ),
    Fault(
        "cli/sample.py",
        "return classes[torch.arange(n) * len(classes) // n]",
        "return classes[torch.arange(n) % len(classes)]",
        ("tests/cli/test_cli.py::TestConditions",),
    ),
    Fault(
        "persistence.py",
        'metadata.get("config") != _fingerprint(text)',
        'metadata.get("config") is None',
        ("tests/test_persistence.py::test_files_of_two_savings",),
    ),
    Fault(
        "randomness.py",
        "text = repr((int(seed), *stream)).encode()",
        "text = repr((int(seed), *stream[:1])).encode()",
        ("tests/test_randomness.py::test_streams_differ_and_are_seeds",),
    ),
)


def run_tests(package: Path, tests: Sequence[str]) -> int:
    """Return pytest's exit code for tests of the copy of the package."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(package.parent),
        "PYTHONDONTWRITEBYTECODE": "1",  # two faults of one second and size would share a file
        "OMP_NUM_THREADS": "1",
    }
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True).returncode


def is_caught(fault: Fault, folder: Path) -> bool:
    """Return whether a test fails with the fault."""
    package = folder / "chartae"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "src" / "chartae", package, ignore=shutil.ignore_patterns("__pycache__"))
    fault.apply(package)
    code = run_tests(package, fault.tests)
    if code not in (ALL_PASSED, SOME_FAILED):
        raise SystemExit(f"{fault}: pytest ended with {code}; are {fault.tests} still there?")
    return code == SOME_FAILED


def main(words: Sequence[str]) -> int:
    """Run the faults of files that contain a word, or all; return the number of missed ones."""
    chosen = [fault for fault in FAULTS if not words or any(word in fault.file for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for fault in chosen:
            caught = is_caught(fault, Path(folder))
            missed += not caught
            print("caught" if caught else "MISSED", fault, flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults caught")
    return missed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
