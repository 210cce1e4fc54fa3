"""Small data sets that need no download: the thesis' disks and rings, scikit-learn's digits."""

import torch

from chartae.checks import check_integer
from chartae.data.arrays import DType, resolve_dtype
from chartae.data.dataset import ArrayDataset
from chartae.errors import ConfigurationError
from chartae.randomness import make_generator

__all__ = ["digits", "disks_and_rings"]

_SMALLEST_SIDE = 16  # at smaller sizes the thinnest rings break into single pixels


def disks_and_rings(
    num_samples: int = 180, *, shape: tuple[int, int] = (28, 28), seed: int = 0
) -> ArrayDataset:
    """Return binary images, alternately a centred disk and a ring, of varied size and thickness.

    These are the toy data of the thesis (sections 1.3.3, 2.4.1, 3.4.6 and appendix 1.8.4: 180
    images, balanced classes). The thesis does not give the size of the images, nor the distribution
    of the shapes. Here diameters are uniform between 0.35 and 0.95 of the shorter side, and the
    thickness of a ring is 0.2 to 0.7 of its radius.

    Args:
        num_samples: at least 2.
        shape: (height, width), each at least 16.
        seed: the same seed gives the same images.

    >>> disks_and_rings()
    ArrayDataset(180 samples of shape (28, 28), float32; disk: 90, ring: 90)
    """
    check_integer("num_samples", num_samples, minimum=2)
    check_integer("seed", seed, minimum=0)
    if len(shape) != 2:
        raise ConfigurationError(f"shape={shape!r}: expected (height, width)")
    height, width = shape
    check_integer("shape[0]", height, minimum=_SMALLEST_SIDE)
    check_integer("shape[1]", width, minimum=_SMALLEST_SIDE)

    generator = make_generator(seed, "disks_and_rings")
    size, width_share = torch.rand(2, num_samples, generator=generator)
    y = torch.arange(num_samples) % 2
    outer = (0.35 + 0.6 * size) * min(shape) / 2
    thickness = ((0.2 + 0.5 * width_share) * outer).clamp(min=1.0)
    inner = torch.where(y == 1, outer - thickness, 0.0)

    rows = torch.arange(height) - (height - 1) / 2
    columns = torch.arange(width) - (width - 1) / 2
    distance = torch.hypot(rows[:, None], columns[None, :])
    x = (distance >= inner[:, None, None]) & (distance <= outer[:, None, None])
    return ArrayDataset(x.to(torch.get_default_dtype()), y, class_names=("disk", "ring"))


def digits(dtype: DType = "default") -> ArrayDataset:
    """Return scikit-learn's 1797 handwritten digits: ``x`` (1797, 8, 8) in [0, 1].

    The pixels, 0 to 16 in the original, are divided by 16.

    >>> data = digits()
    >>> len(data), data.input_shape, data.num_classes
    (1797, (8, 8), 10)
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    images = torch.from_numpy(source.images / 16.0)
    return ArrayDataset.from_arrays(images.to(resolve_dtype(dtype)), source.target, dtype=dtype)
