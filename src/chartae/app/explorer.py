"""What the server of the explorer keeps, and the files that it exports."""

import csv
import io
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.app import view
from chartae.app.landscape import Landscape
from chartae.app.pictures import Painter
from chartae.checks import check_integer
from chartae.errors import ConfigurationError
from chartae.report.latent import Plane
from chartae.samplers import Sampler

__all__ = ["Explorer", "latents_table", "shown_arrays"]

NEAR = 5
"""Number of neighbours."""


class Explorer:
    """What the server keeps: what is shown, and what is costly to compute again.

    Views are in the browsers, so several people can look at one server.

    Args:
        space: the model and its observations.
        title: what the page is called.
    """

    def __init__(self, space: Landscape, title: str = "") -> None:
        self.space, self.title = space, title or type(space.model).__name__
        self.painter = Painter.of(space.x)
        self._plane = lru_cache(maxsize=64)(self._make_plane)
        self._volume = lru_cache(maxsize=16)(self._make_volume)
        self._samplers: dict[str, Sampler] = {}
        # Threads of one process share torch's generators, and samplers are fitted once.
        self._turn = threading.Lock()

    def plane(self, kind: str, across: int, up: int, point: Sequence[float] | None) -> Plane:
        """Return the plane that the controls name, through the chosen point.

        Raises:
            ConfigurationError: for axes that are equal or do not exist.
            DataError: for a point of another dimension.
        """
        d, principal = self.space.dim, kind == "principal"
        count = min(d, len(self.space.codes)) if principal else d
        for name, axis in (("across", across), ("up", up)):
            check_integer(name, axis, minimum=0, maximum=count - 1)
        if across == up:
            raise ConfigurationError(f"both axes are number {across + 1}: choose two that differ")
        plane = self._plane(across, up, principal)
        return plane if point is None or d == 2 else plane.through(self.space.latent(point))

    def _make_plane(self, across: int, up: int, principal: bool) -> Plane:
        return Plane(self.space.codes, (across, up), principal=principal)

    def volume(
        self, kind: str, across: int, up: int, point: Sequence[float] | None
    ) -> tuple[Any, Any, Any] | None:
        """Return the positions along both axes of a plane, and the log-volume there, as arrays."""
        fixed = None if point is None or self.space.dim == 2 else tuple(point)
        return self._volume(kind, across, up, fixed)

    def _make_volume(self, *controls: Any) -> tuple[Any, Any, Any] | None:
        found = view.volume_map(self.space, self.plane(*controls))
        if found is None:
            return None
        square, values = found
        x, y = square.points[0, :, 0], square.points[:, 0, 1]
        across, up, z = (t.cpu().float().numpy() for t in (x, y, values))
        return across, up, z

    def at(self, pointer: Mapping[str, Any], plane: Plane) -> Tensor:
        """Return the latent ``(d,)`` at a place on the plane, or of the sliders."""
        if "z" in pointer:
            return self.space.latent(pointer["z"])
        flat = torch.tensor([pointer["u"], pointer["v"]]).to(self.space.codes)
        return plane.lift(flat)

    def decoded(self, z: Tensor, label: int | None) -> tuple[str, view.Neighbours]:
        """Return the picture at a latent, and its neighbours.

        If single latents are not decoded, the picture is the reconstruction of the nearest
        observation.
        """
        near = view.nearest_points(self.space.codes, view.on_the_space(self.space.model, z), NEAR)
        if view.without_decoding(self.space):
            found = view.reconstruct(self.space, near.indices[:1])[0]
        else:
            found = view.decode(self.space, z[None], label)[0]
        return self.painter.uri(found.cpu()), near

    def strip(self, x: Tensor, columns: int | None = None) -> str:
        """Return a picture of observations side by side."""
        return self.painter.strip(x.cpu(), columns)

    def sampler(self, name: str) -> Sampler:
        """Return a sampler by name; it is fitted at first use."""
        with self._turn:
            if name not in self._samplers:
                self._samplers[name] = view.fitted_sampler(self.space, name)
            return self._samplers[name]


# --- files ----------------------------------------------------------------------------------------


def latents_table(space: Landscape) -> str:
    """Return the codes and the columns of the observations as a table of comma-separated values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = list(space.columns.values())
    writer.writerow(["index", *(f"z{k + 1}" for k in range(space.dim)), *space.columns])
    for index, code in enumerate(space.codes.cpu().numpy()):
        writer.writerow(
            [index, *(f"{v:.9g}" for v in code), *(column[index] for column in columns)]
        )
    return text.getvalue()


def shown_arrays(space: Landscape, shown: Mapping[str, Any], label: int | None = None) -> bytes:
    """Return an .npz archive of codes and of all latents that are shown, with what they decode to.

    Args:
        space: the model and its observations.
        shown: latents ``(n, d)`` by name.
        label: as in `view.decode`.
    """
    arrays: dict[str, Any] = {"codes": space.codes.cpu().numpy()}
    for name, values in shown.items():
        z, key = space.latent(values), name.replace(" ", "_")
        arrays[f"z_{key}"] = z.cpu().numpy()
        if view.without_decoding(space) is None:
            arrays[f"x_{key}"] = view.decode(space, z, label).cpu().numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
