"""Names that people choose, as names of folders."""

import hashlib
import string

__all__ = ["folder_name"]

_PLAIN = frozenset(string.ascii_letters + string.digits + " _-+=,.")
# Names that Windows keeps for devices, whatever follows their first dot.
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
)
_LONGEST = 180


def folder_name(name: str) -> str:
    """Return a name of a folder for ``name``: always that of a child, and another one for another.

    Two names never share a folder, on file systems that ignore case either. Letters, digits and
    some signs stay as they are, other characters become ``%`` and two hexadecimal digits for each
    of their bytes in UTF-8. Where there are capitals, ``@`` and a hexadecimal number follow whose
    bits say which letters they are. A name of more than 180 characters ends in a checksum.

    >>> folder_name("healthy"), folder_name("AD/MCI"), folder_name(".."), folder_name("")
    ('healthy', 'AD%2fMCI@e3', '%2e%2e', '%')
    """
    encoded = "".join(c if c in _PLAIN else _bytes(c) for c in name)
    if encoded[:1] in {".", " "} or encoded.partition(".")[0].rstrip().lower() in _RESERVED:
        encoded = _bytes(encoded[0]) + encoded[1:]
    if encoded[-1:] in {".", " "}:  # Windows drops them
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
