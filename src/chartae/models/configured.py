"""Modules that record the arguments of their constructor: the base of models and samplers."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import BoundArguments, Parameter, Signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Unpack, get_args, get_origin

import numpy as np
from torch import Tensor, nn

from chartae.checks import check_annotated
from chartae.errors import ConfigurationError, DataError
from chartae.hub import Card, push
from chartae.persistence import register, save

__all__ = ["Configured"]


class Configured(nn.Module):
    """Base of objects that are built from plain arguments and saved with them.

    The arguments of a constructor are recorded when it is called. NumPy's numbers and arrays become
    Python's, so that they can be written as JSON. A constructor that passes ``**options`` on to its
    base class has the arguments of that class too. If an attribute has the name of an argument, its
    value replaces the recorded one. Arguments are checked by their annotations, such as
    ``num_steps: Count`` (`chartae.checks`).

    Raises:
        ConfigurationError: for an argument that the constructor does not have, for a missing
            argument, or for a value that the annotation does not allow.
    """

    fitted_buffers: ClassVar[tuple[str, ...]] = ()
    """Names of the buffers whose first dimension is known only after training or `fit`."""
    metadata: Mapping[str, Any] = MappingProxyType({})
    """JSON values that are saved with the object, such as the names of the classes it learned."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        register(cls)
        if "__init__" in vars(cls):
            type.__setattr__(cls, "__init__", _recorded(vars(cls)["__init__"]))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, which rebuild the same object."""
        record: Record = vars(self)["recorded"]
        return {name: vars(self).get(name, value) for name, value in record.values.items()}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``; `chartae.load` reads them back.

        A sampler is written together with its model.
        """
        save(self, folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: Card | None = None,
        private: bool = False,
        revision: str | None = None,
        message: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
    ) -> str:
        """Upload to the Hugging Face Hub what `save_pretrained` writes; `chartae.load` reads it.

        The repository is created if it does not exist. Nothing but the two files and the card is
        uploaded. They tell what the model learned: its weights, class names, names of columns.
        The extra ``hub`` is needed.

        Args:
            repo_id: the name of the repository, ``"user/name"``.
            card: the page of the model, from `chartae.report.model_card`. None keeps the page that
                the repository has; a new one gets a short page.
            private: whether a new repository is private.
            revision: a branch, which is created if it does not exist; None is the main branch.
            message: the message of the commit.
            create_pr: whether to open a pull request in place of a commit.
            token: a token that may write; None is that of the machine (``hf auth login``, or
                ``HF_TOKEN``). It is neither logged nor written, and errors do not show it.

        Returns:
            The URL of the commit or of the pull request.

        Raises:
            ConfigurationError: for a name that the hub does not allow; with ``private`` for a
                repository that is public; without huggingface_hub; or as `save_pretrained`.
            CheckpointError: if the hub cannot be reached, or refuses.
        """
        return push(
            self,
            repo_id,
            card=card,
            private=private,
            revision=revision,
            message=message,
            create_pr=create_pr,
            token=token,
        )

    def check_buffers(self) -> None:
        """Raise an error of chartae's if the loaded state cannot be that of a fitted object.

        Either all of ``fitted_buffers`` must have been fitted, or none.
        """
        sizes = {
            n: b.numel() for n in self.fitted_buffers if (b := self._buffers.get(n)) is not None
        }
        if any(sizes.values()) and (empty := [name for name, size in sizes.items() if not size]):
            raise DataError(
                f"{', '.join(empty)} is empty: expected all fitted buffers to be filled, or none"
            )

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Resize the fitted buffers to the size of the loaded ones."""
        for name in self.fitted_buffers:
            own, given = self._buffers.get(name), state_dict.get(prefix + name)
            if own is None or not isinstance(given, Tensor) or given.dim() != own.dim():
                continue
            if given.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_empty(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


@dataclass
class Record:
    """The arguments of a constructor, and of the base classes to which it passes them on.

    Attributes:
        values: the arguments, by name, defaults included.
        passed: names that the next constructor may receive from the caller; None stands for any.
        closed: whether the base classes accept no undeclared arguments from the caller.
        ended: whether no more arguments are passed on.
    """

    values: dict[str, Any] = field(default_factory=dict)
    passed: set[str] | None = None
    closed: bool = False
    ended: bool = False

    def add(self, bound: BoundArguments) -> None:
        """Add the next constructor's arguments, except those that the subclass has set."""
        if self.ended:
            return
        given = _named(bound)
        bound.apply_defaults()
        for name, value in _named(bound).items():
            hidden = self.closed or name in given
            if self.passed is None or name in self.passed or not hidden:
                self.values.setdefault(name, value)
        kinds = {parameter.kind: parameter for parameter in bound.signature.parameters.values()}
        options = kinds.get(Parameter.VAR_KEYWORD)
        self.ended = options is None and Parameter.VAR_POSITIONAL not in kinds
        if self.closed:
            return
        self.passed = None
        if options and Parameter.VAR_POSITIONAL not in kinds:
            others = bound.arguments[options.name].keys() & self.values.keys()
            declared = _declared(options)
            self.passed, self.closed = {*(declared or ()), *others}, declared is not None


def _recorded(init: Callable[..., None]) -> Callable[..., None]:
    """Return the constructor, wrapped so that it checks and records its arguments."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def constructor(self: Configured, *args: Any, **kwargs: Any) -> None:
        args, kwargs = plain(args), plain(kwargs)
        bound = _bind(type(self).__name__, signature, self, args, kwargs)
        for name, value in bound.arguments.items():
            check_annotated(name, value, signature.parameters[name].annotation)
        vars(self).setdefault("recorded", Record()).add(bound)
        init(self, *args, **kwargs)

    return constructor


def _bind(
    owner: str, signature: Signature, self: Configured, args: Any, kwargs: Any
) -> BoundArguments:
    """Return the arguments of a constructor, by name."""
    known = list(signature.parameters)[1:]
    options = next((p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
    declared = _declared(options) if options else []
    if options:
        known = [name for name in known if name != options.name] + (declared or [])
    for name in kwargs:
        if name not in known and declared is not None:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f": expected {', '.join(known)}"
            raise ConfigurationError(f"{name} is not an argument of {owner}{hint}")
    try:
        return signature.bind(self, *args, **kwargs)
    except TypeError as error:
        raise ConfigurationError(f"{owner}: {error}; it takes {', '.join(known)}") from None


def _declared(options: Parameter) -> list[str] | None:
    """Return the names that ``**options: Unpack[...]`` declares; None if any name is accepted."""
    if get_origin(options.annotation) is not Unpack:
        return None
    (kind,) = get_args(options.annotation)
    return list(kind.__annotations__)


def _named(bound: BoundArguments) -> dict[str, Any]:
    """Return the arguments by name, those in ``**options`` included, without ``self``."""
    (_, *parameters) = bound.signature.parameters.values()
    found: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= bound.arguments.get(parameter.name, {})
        elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name in bound.arguments:
            found[parameter.name] = bound.arguments[parameter.name]
    return found


def plain(value: Any) -> Any:
    """Return a value with Python's numbers and lists in place of NumPy's and tensors of one number.

    >>> plain({"hidden": (np.int64(3), np.float32(0.5)), "scale": np.ones(2)})
    {'hidden': (3, 0.5), 'scale': [1.0, 1.0]}
    """
    if isinstance(value, (np.generic, np.ndarray)) or (
        isinstance(value, Tensor) and not value.dim()
    ):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return (
            [plain(item) for item in value] if isinstance(value, list) else tuple(map(plain, value))
        )
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value
