"""Saving and loading with JSON and safetensors. Nothing is unpickled.

A model or sampler is a folder of two files: ``config.json`` (class, constructor arguments, library
version) and ``model.safetensors`` (parameters and buffers). A training checkpoint is one file.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from chartae.allowance import LEAST, Allowance
from chartae.atomic import atomic_path, check_writable, write_text
from chartae.errors import ChartaeError, CheckpointError, ConfigurationError
from chartae.gradients import gradients
from chartae.randomness import seeded

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "check_ours",
    "check_replaceable",
    "is_state",
    "load",
    "read_description",
    "read_state",
    "register",
    "save",
    "write_state",
    "writing",
]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = 1
LONGEST = 1000
"""Maximum length of another error's text in a message."""
ROOM = 1 << 27
"""Bytes that a constructor may use in addition to its tensors."""

CLASSES: dict[str, type[Any]] = {}


@runtime_checkable
class Configurable(Protocol):
    """An object that can be saved: a module with access to its constructor's arguments."""

    fitted_buffers: tuple[str, ...]
    metadata: Mapping[str, Any]

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        ...

    def check_buffers(self) -> None:
        """Raise an error of chartae if the loaded buffers are not a valid fitted state."""
        ...


def register(cls: type[Any]) -> None:
    """Register ``cls`` for `load` by its name. Base classes call it for their subclasses.

    A user's class never replaces a class of chartae with the same name.
    """
    known = CLASSES.get(cls.__name__)
    if known is None or not _is_ours(known) or _is_ours(cls):
        CLASSES[cls.__name__] = cls


def _is_ours(cls: type[Any]) -> bool:
    return cls.__module__.partition(".")[0] == "chartae"


# --- models and samplers ------------------------------------------------------------------------


def save(module: Any, folder: str | Path) -> None:
    """Write ``module`` to ``folder``, each file atomically.

    A model that was saved there before is replaced. Other files are not.

    Raises:
        ConfigurationError: if the folder is not writable; if it has files of these names that
            chartae did not write; if an argument of the module is neither JSON nor a torch module;
            if another registered class has the name of the module's class; or if the precision is
            not float32 or float64.
        CheckpointError: if writing fails (for example on a full disk). The old files then remain.
            If one of the two files was already replaced, `load` refuses the folder.
    """
    text, state = json.dumps(describe(module), indent=2), module.state_dict()
    if reason := _unusable_precision(state):
        raise ConfigurationError(f"this {type(module).__name__} cannot be saved: {reason}")
    folder = check_writable("folder", folder)
    check_replaceable("folder", folder)
    # The weights hold a fingerprint of their configuration, so that `load` refuses files from two
    # different saves.
    metadata = {"config": _fingerprint(text)}
    _write_tensors(folder / WEIGHTS_FILE, state, metadata)
    with writing(folder / CONFIG_FILE):
        write_text(folder / CONFIG_FILE, text)


def check_replaceable(name: str, folder: Path) -> None:
    """Raise `ConfigurationError` if `save` would replace files that chartae did not write."""
    check_ours(
        name,
        folder / CONFIG_FILE,
        lambda path: {"chartae", "class"} <= read_description(path)[1].keys(),
    )
    check_ours(name, folder / WEIGHTS_FILE, lambda path: "config" in _read_metadata(path))


def check_ours(name: str, path: Path, recognises: Callable[[Path], object]) -> None:
    """Raise `ConfigurationError` if ``path`` exists and was not written by chartae.

    Args:
        name: name of the argument that gives ``path``.
        path: the file to be written.
        recognises: returns whether chartae wrote the file, or raises an error of chartae if not.
    """
    try:
        if not path.exists() or recognises(path):
            return
    except ChartaeError:
        pass
    raise ConfigurationError(
        f"{name}: {str(path)!r} was not written by chartae, or is damaged: expected another path"
    )


@gradients()
def load(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    **modules: nn.Module,
) -> Any:
    """Load a model or a sampler that `save` wrote, in eval mode.

    Args:
        folder: the folder where it was saved.
        device: device for the loaded object; the device at saving does not matter.
        dtype: float32 or float64; None keeps the saved dtype.
        modules: the arguments that were user-defined modules, by name (``encoder=...``).

    Raises:
        CheckpointError: if a file is missing, truncated, from another save or from a newer
            version; if the class is unknown, cannot be built from its arguments, or needs far more
            memory than the file; if a tensor is missing, or has a wrong shape, a wrong precision or
            NaN; if the fitted state is not consistent; or if a user-defined module is not given.
        ConfigurationError: for another dtype, a device that is not available, or a module that
            does not belong to any argument.

    >>> import tempfile, chartae, torch
    >>> model = chartae.VAE((8, 8), latent_dim=2).eval()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save_pretrained(folder)
    ...     copy = chartae.load(folder, dtype=torch.float64)
    >>> copy.encode(torch.zeros(5, 8, 8, dtype=torch.float64)).dtype
    torch.float64
    """
    if dtype not in (None, torch.float32, torch.float64):
        raise ConfigurationError(f"dtype={dtype}: expected torch.float32 or torch.float64")
    for name, given in modules.items():
        if not isinstance(given, nn.Module):
            raise ConfigurationError(f"{name} is {type(given).__name__}: expected a torch module")
    place = _available(device)
    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name}: expected a folder written by chartae")
    text, description = read_description(folder / CONFIG_FILE)
    tensors, metadata = _read_tensors(folder / WEIGHTS_FILE)
    if metadata.get("config") != _fingerprint(text):
        raise CheckpointError(
            f"{folder}: {WEIGHTS_FILE} does not belong to {CONFIG_FILE} (saving was interrupted "
            "or a file was edited): save the model again"
        )
    if reason := _unusable_precision(tensors):
        raise CheckpointError(f"{folder / WEIGHTS_FILE}: {reason}")
    # The module gets its tensors from the file, so a small file cannot need a large module.
    size = ROOM + 4 * sum(max(LEAST, tensor.nbytes) for tensor in tensors.values())
    unused = dict(modules)
    with seeded(0), Allowance(size):
        module = rebuild(description, modules, unused)
    if unused:
        raise ConfigurationError(
            f"{', '.join(unused)} given, but the {description['class']} in {folder} was saved "
            "without a user-defined module for it"
        )
    _fill(module.eval(), tensors, folder / WEIGHTS_FILE, dtype)
    return module if place.type == "cpu" else module.to(place)


def _available(device: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigurationError(
            f"device={str(device)!r} is not available on this machine: "
            f"{str(error).partition('. ')[0].splitlines()[0]}"
        ) from None


def describe(module: Any) -> dict[str, Any]:
    """Return the JSON description of a module: class, arguments, versions, metadata.

    Raises:
        ConfigurationError: if the module could not be rebuilt from the description.
    """
    from chartae import __version__

    cls = type(module)
    known = CLASSES.get(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigurationError(
            f"the class {cls.__module__}.{cls.__qualname__} cannot be saved, because "
            f"{known.__module__}.{known.__qualname__} has the same name: rename it"
        )
    arguments = {name: _to_json(name, value) for name, value in module.config().items()}
    metadata = {"metadata": _to_json("metadata", module.metadata)} if module.metadata else {}
    return {
        "class": cls.__name__,
        "format": FORMAT,
        "chartae": __version__,
        "arguments": arguments,
        **metadata,
    }


def rebuild(
    description: Mapping[str, Any], modules: Mapping[str, nn.Module], unused: dict[str, nn.Module]
) -> Any:
    """Build the module of a description, with new initial weights.

    Args:
        description: a description from `describe`.
        modules: the arguments that were user-defined modules, by name.
        unused: modules not used so far, by name; used ones are removed from it.
    """
    name, version = description.get("class"), description.get("format", 0)
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointError(
            f"saved in format {version} by chartae {description.get('chartae')}: this version "
            f"reads formats up to {FORMAT}; upgrade chartae"
        )
    if not isinstance(name, str) or name not in CLASSES:
        raise CheckpointError(
            f"class {name!r} is unknown: expected one of {', '.join(sorted(CLASSES))}; if you "
            "defined the class, import it before loading"
        )
    try:
        given = description["arguments"]
        arguments = {key: _from_json(key, value, modules, unused) for key, value in given.items()}
        module = CLASSES[name](**arguments)
        module.metadata = {**description.get("metadata", {})}
        return module
    except CheckpointError:  # from a part; its message is complete
        raise
    except Exception as error:  # the arguments were valid when saved, so they are damaged
        raise CheckpointError(
            f"{name} cannot be rebuilt from its configuration: {_brief(error)}"
        ) from error


def _brief(error: Exception) -> str:
    """Return an error's message in one line, with its type if it is not an error of chartae."""
    kind = "" if isinstance(error, ChartaeError) else f"{type(error).__name__}: "
    text = " ".join(f"{kind}{error}".split()).partition("Exception raised from")[0]  # C++ frames
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _to_json(name: str, value: Any) -> Any:
    if isinstance(value, Configurable):
        return {"__object__": describe(value)}
    if isinstance(value, nn.Module):
        return {"__module__": type(value).__name__}
    try:
        return json.loads(json.dumps(value, default=_plain))
    except TypeError as error:
        raise ConfigurationError(f"{name}={value!r} cannot be saved as JSON: {error}") from error


def _from_json(
    name: str, value: Any, modules: Mapping[str, nn.Module], unused: dict[str, nn.Module]
) -> Any:
    if isinstance(value, Mapping) and "__object__" in value:
        return rebuild(value["__object__"], modules, unused)
    if isinstance(value, Mapping) and "__module__" in value:
        if name not in modules:
            raise CheckpointError(
                f"{name} was a user-defined module ({value['__module__']}): "
                f"pass it as load(..., {name}=...), or register a preset for it"
            )
        unused.pop(name, None)
        return modules[name]
    return value


def _unusable_precision(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the reason why no model can have tensors of these dtypes, or None."""
    kinds = {tensor.dtype: name for name, tensor in tensors.items() if tensor.is_floating_point()}
    for dtype, name in kinds.items():
        if dtype not in (torch.float32, torch.float64):
            return f"{name} is {dtype}: expected torch.float32 or torch.float64"
    if len(kinds) > 1:
        given = " and ".join(f"{name} is {dtype}" for dtype, name in kinds.items())
        return f"{given}: expected one precision"
    return None


def _fill(
    module: nn.Module, tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None
) -> None:
    """Load the tensors of a file into a new module, after checking them."""
    wanted = dtype or next((t.dtype for t in tensors.values() if t.is_floating_point()), None)
    expected = module.state_dict()
    if any(t.is_floating_point() and t.dtype != wanted for t in expected.values()):
        expected = module.to(dtype=wanted).state_dict()
    optional = {name for name in expected if _is_optional(module, name)}
    if missing := sorted(expected.keys() - tensors.keys() - optional):
        raise CheckpointError(f"{path} lacks the tensor(s) {', '.join(missing)}")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise CheckpointError(f"{path} has unknown tensor(s) {', '.join(unknown)}")
    parts = dict(module.named_modules())
    for name, tensor in tensors.items():
        owner, _, last = name.rpartition(".")
        grows = last in getattr(parts.get(owner), "fitted_buffers", ())
        _check_tensor(f"{path}: {name}", tensor, expected[name], grows=grows)
    module.load_state_dict(dict(tensors))
    try:
        for part in parts.values():
            if hasattr(part, "check_buffers"):
                part.check_buffers()
    except ChartaeError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _is_optional(module: nn.Module, name: str) -> bool:
    """Return whether files of earlier versions may lack a tensor."""
    owner, _, last = name.rpartition(".")
    return last in getattr(module.get_submodule(owner), "optional_buffers", ())


def _check_tensor(name: str, tensor: Tensor, like: Tensor, *, grows: bool) -> None:
    """Raise `CheckpointError` unless a tensor of a file can replace the tensor of a new module."""
    if tensor.dtype != like.dtype and not (tensor.is_floating_point() and like.is_floating_point()):
        raise CheckpointError(f"{name} is {tensor.dtype}: expected {like.dtype}")
    shape, wanted = tuple(tensor.shape), tuple(like.shape)
    if shape != wanted and not (grows and shape[1:] == wanted[1:] and len(shape) == len(wanted)):
        text = f"({', '.join(['n', *map(str, wanted[1:])])})" if grows and wanted else str(wanted)
        raise CheckpointError(f"{name} has shape {shape}: expected {text}")
    value = tensor.to(like.dtype)
    if not tensor.is_floating_point() or bool(value.sum().isfinite()):
        return
    finite = value.isfinite()
    # Some buffers are not finite in a new module, for example those that training has not set.
    if not finite.all() and not (shape == wanted and torch.equal(finite, like.isfinite())):
        raise CheckpointError(f"{name} has NaN or infinite values: expected finite numbers")


def read_description(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a configuration that `save` wrote, and the description in it.

    Raises:
        CheckpointError: if the file cannot be read, or describes something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        description = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:  # decoding raises a ValueError
        raise CheckpointError(f"{path} cannot be read (truncated or damaged?): {error}") from error
    if not isinstance(description, dict) or not isinstance(description.get("arguments"), dict):
        raise CheckpointError(f"{path} does not describe a model of chartae")
    return text, description


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- states: nested dictionaries and lists of tensors and JSON values ---------------------------


def write_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a nested state of dictionaries, lists, tensors and JSON values, atomically.

    Raises:
        ConfigurationError: if it holds values of other types.
        CheckpointError: if writing fails (for example on a full disk); ``path`` does not change.
    """
    tensors: dict[str, Tensor] = {}
    try:
        text = json.dumps(_pack(state, tensors), default=_plain)
    except TypeError as error:
        raise ConfigurationError(f"a checkpoint cannot hold this state: {error}") from error
    _write_tensors(Path(path), tensors, {"format": str(FORMAT), "state": text})


def is_state(path: Path) -> bool:
    """Return whether `write_state` wrote the file.

    Raises:
        CheckpointError: if it cannot be read.
    """
    return "state" in _read_metadata(path)


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a state that `write_state` wrote; tuples become lists.

    Raises:
        CheckpointError: if the file is truncated, not a state, or of a newer version.
    """
    tensors, metadata = _read_tensors(Path(path))
    if "state" not in metadata or not metadata.get("format", "").isdecimal():
        raise CheckpointError(f"{path} is not a checkpoint of chartae")
    try:
        if int(metadata["format"]) > FORMAT:
            raise CheckpointError(f"{path} is of a newer format: upgrade chartae")
        state = _unpack(json.loads(metadata["state"]), tensors)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {_brief(error)}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is damaged: it holds {type(state).__name__}, not a state")
    return state


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value
        return {"__tensor__": key}
    if isinstance(value, Mapping):
        # Pairs preserve keys that JSON would turn into strings (an optimiser's are integers).
        return {"__dict__": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_pack(item, tensors) for item in value]
    return value


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]].clone()  # the file may be replaced
        return {key: _unpack(item, tensors) for key, item in value["__dict__"]}
    return value


def _plain(value: Any) -> Any:
    """Convert a NumPy number to a Python number."""
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` inside the block into a `CheckpointError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {error}") from error


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save as serialize

    # Clones, because safetensors refuses views of one storage.
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with writing(path), atomic_path(path) as temporary:
        # Not `safetensors.save_file`: if killed, it leaves temporary files with unknown names.
        temporary.write_bytes(serialize(plain, metadata=metadata))


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, memory-mapped, and its metadata."""
    with _opened(path) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def _read_metadata(path: Path) -> dict[str, str]:
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read (truncated or damaged?): {error}") from error
