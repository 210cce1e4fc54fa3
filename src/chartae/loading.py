"""`chartae.load`: a model or sampler of a folder or of the Hugging Face Hub.

All classes of the library are registered here.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

import chartae.longitudinal  # registers its classes
import chartae.models
import chartae.samplers  # noqa: F401
from chartae import persistence
from chartae.errors import CheckpointError, ConfigurationError
from chartae.hub import fetch, is_hub_id

__all__ = ["load"]


def load(
    folder: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    **modules: nn.Module,
) -> Any:
    """Load a model or a sampler, in eval mode, from a folder or from the Hugging Face Hub.

    Two files are read, ``config.json`` and ``model.safetensors``. No code of theirs is executed.

    Args:
        folder: the folder where it was saved; or the name of a repository of the hub as text,
            ``"user/name"``, if there is no such folder. The copy of the hub is kept in the cache of
            huggingface_hub, and used without a network. The extra ``hub`` is needed.
        revision: a branch, a tag or a commit of the repository; None is the main branch.
        token: a token that may read the repository, for one that is private; None is that of the
            machine (``hf auth login``, or ``HF_TOKEN``), False is none.
        device: device for the loaded object; the device at saving does not matter.
        dtype: float32 or float64; None keeps the saved dtype.
        modules: the arguments that were user-defined modules, by name (``encoder=...``).

    Raises:
        CheckpointError: if a file is missing, truncated, from another save or from a newer
            version; if the class is unknown, cannot be built from its arguments, or needs far more
            memory than the file; if a tensor is missing, or has a wrong shape, a wrong precision or
            NaN; if the fitted state is not consistent; if a user-defined module is not given; if
            the hub has no such model, or cannot be reached and the cache does not have the model.
        ConfigurationError: for another dtype, a device that is not available, a module that does
            not belong to any argument, a revision of a folder; for a name of the hub without
            huggingface_hub.

    >>> import tempfile, chartae, torch
    >>> model = chartae.VAE((8, 8), latent_dim=2).eval()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save_pretrained(folder)
    ...     copy = chartae.load(folder, dtype=torch.float64)
    >>> copy.encode(torch.zeros(5, 8, 8, dtype=torch.float64)).dtype
    torch.float64
    """
    if isinstance(folder, str) and is_hub_id(folder) and not Path(folder).exists():
        try:
            folder = fetch(folder, revision=revision, token=token)
        except (CheckpointError, ConfigurationError) as error:
            raise type(error)(f"{folder!r} is not a folder, and {error}") from error
    elif revision is not None:
        raise ConfigurationError(
            f"revision={revision!r}: {str(folder)!r} is a path; expected the name of a model on "
            "the Hugging Face Hub, as in 'user/name'"
        )
    return persistence.load(folder, device=device, dtype=dtype, **modules)
