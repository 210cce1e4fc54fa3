"""The device of these tests: CUDA, or what ``CHARTAE_TEST_DEVICE`` names.

``CHARTAE_TEST_DEVICE=cpu make test-cuda`` shows on any machine that the tests themselves work.
"""

import os

import pytest
import torch

DEVICE = os.environ.get("CHARTAE_TEST_DEVICE", "cuda")


def skip_without_device() -> None:
    """Skip the module that calls it where there is no such device."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device", allow_module_level=True)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device(DEVICE)
