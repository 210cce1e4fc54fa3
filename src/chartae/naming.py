"""Folder names for arbitrary strings, such as class names."""

import hashlib
import string

__all__ = ["folder_name"]

_PLAIN = frozenset(string.ascii_letters + string.digits + " _-+=,.")
# Names that Windows reserves for devices, with any extension.
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
)
_LONGEST = 180


def folder_name(name: str) -> str:
    """Return a folder name for ``name``, which is always a valid name of a subfolder.

    Different names give different folders, also on file systems that ignore case. Letters, digits
    and some signs do not change. Other characters become ``%`` and two hexadecimal digits for each
    byte in UTF-8. If there are capital letters, ``@`` and a hexadecimal number are appended; the
    bits of the number mark the capitals. A name of more than 180 characters ends in a checksum.

    >>> folder_name("healthy"), folder_name("AD/MCI"), folder_name(".."), folder_name("")
    ('healthy', 'AD%2fMCI@e3', '%2e%2e', '%')
    """
    encoded = "".join(c if c in _PLAIN else _bytes(c) for c in name)
    if encoded[:1] in {".", " "} or encoded.partition(".")[0].rstrip().lower() in _RESERVED:
        encoded = _bytes(encoded[0]) + encoded[1:]
    if encoded[-1:] in {".", " "}:  # Windows removes them
        encoded = encoded[:-1] + _bytes(encoded[-1])
    capitals = sum(1 << place for place, c in enumerate(encoded) if c.isupper())
    if capitals:
        encoded += f"@{capitals:x}"
    if len(encoded) > _LONGEST:
        checksum = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8)
        encoded = f"{encoded[: _LONGEST - 20]}@@{checksum.hexdigest()}"
    return encoded or "%"


def _bytes(characters: str) -> str:
    return "".join(f"%{byte:02x}" for byte in characters.encode("utf-8", "surrogatepass"))
