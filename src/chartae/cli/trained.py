"""A trained model in a folder, with the names of its classes and the form of its data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from chartae.augmentation import RECORD_FILE
from chartae.checks import check_choice
from chartae.data import ArrayDataset, Form
from chartae.errors import CheckpointError, ConfigurationError, DataError
from chartae.hub import fetch, is_hub_id
from chartae.loading import load
from chartae.longitudinal import SequenceModel
from chartae.models import Autoencoder
from chartae.persistence import CONFIG_FILE
from chartae.samplers import Sampler

__all__ = ["RECORD", "Trained", "model_folder"]

RECORD = "train.json"
"""The record of ``chartae train``."""


def model_folder(model: Path) -> Path:
    """Return the folder of a trained model: a path, or the copy of a model of the hub.

    Args:
        model: a folder; or, if there is none, ``user/name`` or ``user/name@revision``.

    Raises:
        ConfigurationError: for a path that is no folder; for a name without huggingface_hub.
        CheckpointError: if the hub has no such model, or cannot be reached.
    """
    name, _, revision = model.as_posix().partition("@")
    if model.exists() or not is_hub_id(name):
        if not model.is_dir():
            raise ConfigurationError(
                f"MODEL={str(model)!r}: expected the folder of a trained model, or the name of one "
                "on the Hugging Face Hub, as in user/name"
            )
        return model
    try:
        return fetch(name, revision=revision or None)
    except (CheckpointError, ConfigurationError) as error:
        raise type(error)(f"MODEL={str(model)!r} is not a folder, and {error}") from error


@dataclass(frozen=True)
class Trained:
    """A model, or a fitted sampler, as it was read from a folder.

    Args:
        loaded: the model or the sampler.
        class_names: names of the classes of a conditional model; empty without conditions.
        form: the form of the training data; None if it was not saved.
    """

    loaded: Autoencoder | Sampler
    class_names: tuple[str, ...]
    form: Form | None

    @property
    def model(self) -> Autoencoder:
        """The model, or that of the sampler."""
        return self.loaded.model if isinstance(self.loaded, Sampler) else self.loaded

    @classmethod
    def read(cls, folder: Path, device: str = "cpu") -> Self:
        """Return the model or sampler of a folder or of the hub.

        Raises:
            ConfigurationError: as `model_folder`; or if it is a model of follow-ups, or one with
                vectors as conditions.
            CheckpointError: as `model_folder`; or if it is damaged, or its record of the data does
                not match the model.
        """
        folder = model_folder(folder)
        loaded = load(folder, device=device)
        model: Autoencoder = loaded.model if isinstance(loaded, Sampler) else loaded
        if isinstance(model, SequenceModel):
            raise ConfigurationError(
                f"MODEL={str(folder)!r} has a {type(model).__name__}, a model of follow-ups: "
                'expected one of single observations; see "chartae generate", impute and futures'
            )
        if model.conditions is not None and not isinstance(model.conditions, int):
            raise ConfigurationError(
                f"{folder} has a model with vectors as conditions: expected one with labels; "
                "a sampler's method sample takes vectors"
            )
        path, known = _known(folder, model)
        try:
            form = Form.from_json(known["form"]) if "form" in known else None
            names = tuple(map(str, known.get("class_names") or range(model.conditions or 0)))
        except (DataError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        if model.conditions is not None and len(names) != model.conditions:
            raise CheckpointError(
                f"{path} names {len(names)} classes: the model has {model.conditions}"
            )
        return cls(loaded, () if model.conditions is None else names, form)

    def as_learned(self, data: ArrayDataset, name: str) -> ArrayDataset:
        """Return data in the form that the model learned.

        A table gets its columns and categories. Images and volumes are scaled by their own range
        if the model learned such ones.

        Raises:
            DataError: if the table does not have the columns, or a sample is constant.
            ConfigurationError: if the data were scaled by their own range, and the model learned
                others.
        """
        if self.form is None:
            return data
        if self.form.normalized:
            data = data.normalized()
        elif data.form.normalized:
            raise ConfigurationError(
                f"normalize='image': the model learned samples that were not normalized; expected "
                f"{name} without it"
            )
        return data.with_columns_of(self.form, name)

    def conditions(self, data: ArrayDataset) -> Tensor | None:
        """Return the labels of data as class indices of the model; None without conditions.

        Raises:
            DataError: if the data have no labels.
            ConfigurationError: if they have a class that the model does not have.
        """
        if not self.class_names:
            return None
        if data.y is None or not data.class_names:
            raise DataError("the data have no labels: a conditional model needs them")
        for name in data.class_names:
            check_choice("label of the data", name, self.class_names)
        return torch.tensor([self.class_names.index(name) for name in data.class_names])[data.y]


def _known(folder: Path, model: Autoencoder) -> tuple[Path, Mapping[str, Any]]:
    """Return the file with the metadata of the training data, and the metadata."""
    if model.metadata:
        return folder / CONFIG_FILE, model.metadata
    # Older models have no metadata: `train` wrote a record beside them, the augmenter one above.
    for path in (folder / RECORD, folder.resolve().parent / RECORD_FILE):
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                return path, {"class_names": record.get("labels", {}).get("names"), **record}
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise CheckpointError(
                    f"{path} cannot be read (truncated or damaged?): {error}"
                ) from error
    return folder, {}
