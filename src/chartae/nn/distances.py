"""Distances between observations, for models that reconstruct by one."""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from chartae.checks import check_choice
from chartae.errors import ConfigurationError

__all__ = ["make_distance"]

Distance = Callable[[Tensor, Tensor], Tensor]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of Wang et al. (2003), from fine to coarse."""
WINDOWS: dict[int, float] = {11: 1.5, 7: 0.9, 5: 0.6, 3: 0.3}
"""Standard deviations of Gaussian windows, by size; the first are Wang et al.'s."""


def make_distance(spec: str | nn.Module, input_shape: tuple[int, ...]) -> Distance:
    """Return a distance between two batches of observations: ``(batch,)``.

    Args:
        spec: ``"ms_ssim"``, one minus the multi-scale structural similarity (Wang et al., 2003) of
            images in [0, 1], of the published 11 pixels and 5 scales what fits the images:
            the largest window that leaves two scales, if any does, and all scales that are no
            smaller than it; ``"l1"`` or ``"l2"``, sums over features of absolute or squared
            differences; or a module of yours.
        input_shape: shape of one observation; for ``"ms_ssim"`` an image ``(H, W)`` or
            ``(C, H, W)``, or a volume ``(C, D, H, W)``, at least 3 wide.

    Raises:
        ConfigurationError: for an unknown distance, or observations that are no images.

    >>> import torch
    >>> make_distance("l1", (4, 4))(torch.zeros(3, 4, 4), torch.ones(3, 4, 4))
    tensor([16., 16., 16.])
    """
    if isinstance(spec, nn.Module):
        return spec
    check_choice("distance", spec, ("ms_ssim", *NORMS))
    return NORMS[spec] if spec in NORMS else _ms_ssim_distance(input_shape)


def _l1(x: Tensor, mean: Tensor) -> Tensor:
    return (x - mean).abs().flatten(1).sum(1)


def _l2(x: Tensor, mean: Tensor) -> Tensor:
    return (x - mean).square().flatten(1).sum(1)


NORMS: dict[str, Distance] = {"l1": _l1, "l2": _l2}


def _ms_ssim_distance(input_shape: tuple[int, ...]) -> Distance:
    spatial = input_shape if len(input_shape) == 2 else input_shape[1:]
    width = min(spatial) if len(spatial) in (2, 3) else 0
    # How many scales are no smaller than the window, for each window that fits at all.
    scales = {w: sum(width >> k >= w for k in range(5)) for w in WINDOWS if width >= w}
    if not scales:
        raise ConfigurationError(
            f"input_shape={input_shape}: distance='ms_ssim' expects images (H, W), (C, H, W) or "
            "volumes (C, D, H, W), at least 3 wide; try distance='l2'"
        )
    window = next((w for w, count in scales.items() if count > 1), next(iter(scales)))
    weights = SCALE_WEIGHTS[: scales[window]]
    betas = tuple(weight / math.fsum(weights) for weight in weights)
    return partial(_ms_ssim, window=window, betas=betas)


def _ms_ssim(x: Tensor, mean: Tensor, *, window: int, betas: tuple[float, ...]) -> Tensor:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    if x.dim() == 3:  # grey images come without a channel
        x, mean = x[:, None], mean[:, None]
    similarity: Tensor = multiscale_structural_similarity_index_measure(
        mean,
        x,
        sigma=WINDOWS[window],
        # The size follows from sigma, but for the depth of volumes.
        kernel_size=[1, 1, window][: x.dim() - 2],
        betas=betas,
        data_range=1.0,
        reduction="none",
        normalize="simple",
    )
    return 1.0 - similarity
