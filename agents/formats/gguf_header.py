"""Whether a GGUF file is whole and makes sense, found out from its header, before a library is let loose on it.

gguf-py's reader believes what a file says: an array of 2^60 numbers keeps it busy until the memory is gone. So the
header is read here first, within bounds. The rules are those of llama.cpp's own reader (`gguf.cpp`, whose test
`test-gguf.cpp` has the ways to break them), and a few that keep time and memory small.
"""

import mmap
from collections.abc import Collection
from math import prod
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader

from agents.weights.cache import ModelNotFound

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a number, by its type in a file."""
UINT32, STRING, ARRAY = 4, 8, 9
VERSIONS = (2, 3)
MOST_NAMES = 65_536
"""Of keys, and of tensors; a large model has a few thousand."""
MOST_ENTRIES = 2_000_000
"""Of all arrays together, as gguf-py needs 20 µs for each. Gemma's 262,144 tokens with all that belongs to them make
1.3 million."""
LONGEST_NAME = 1_024
DIMENSIONS = 4
ALIGNMENT = 32


def open_gguf(file: Path) -> GGUFReader:
    """A reader of a GGUF file that was checked; ModelNotFound, saying what is wrong where, if it is not whole."""
    check_gguf(file)
    try:
        return GGUFReader(file)
    except (ValueError, LookupError, OSError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise ModelNotFound(f"{file}: is no GGUF file, or is cut short or damaged ({reason})") from error


class _NotSupportedError(Exception):
    """A file is as GGUF has it, and yet no model that can be run here."""


def check_gguf(file: Path) -> None:
    """ModelNotFound, saying what is wrong where, unless a GGUF file is whole and has what a model needs."""
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check(_Header(content))
    except _NotSupportedError as error:
        raise ModelNotFound(f"{file}: is not supported ({error})") from error
    except (ValueError, OSError) as error:
        raise ModelNotFound(f"{file}: is no GGUF file, or is cut short or damaged ({error})") from error


class _Header:
    """A place in a file from which it is read on; ValueError where the file ends too soon."""

    def __init__(self, content: mmap.mmap):
        self.content, self.place, self.entries = content, 0, 0

    def take(self, size: int) -> bytes:
        begin = self.place
        self.skip(size)
        return self.content[begin : self.place]

    def skip(self, size: int) -> None:
        if size > len(self.content) - self.place:
            raise ValueError(f"at byte {self.place} it says that {size} follow, and {self.left} do")
        self.place += size

    @property
    def left(self) -> int:
        return len(self.content) - self.place

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def name(self, known: Collection[str], what: str) -> str:
        """The name of a key or tensor, which is not among those known."""
        begin, length = self.place, self.number(8)
        _require(
            0 < length <= LONGEST_NAME, f"length of the {what}'s name at byte {begin}", length, f"1 to {LONGEST_NAME:,}"
        )
        name = self.take(length).decode()
        _require(name not in known, what, name, "there once")
        return name


def _require(ok: bool, name: str, value: object, allowed: str, error: type[Exception] = ValueError) -> None:
    if not ok:
        raise error(f"{name} = {value!r}: must be {allowed}")


def _check(header: _Header) -> None:
    magic = header.take(4)
    _require(magic == b"GGUF", "its first four bytes", magic, "b'GGUF'")
    version = header.number(4)
    _require(version in VERSIONS, "version", version, "2 or 3, of little-endian numbers")
    tensors, keys = header.number(8), header.number(8)
    for name, count in (("number of tensors", tensors), ("number of keys", keys)):
        _require(count <= MOST_NAMES, name, count, f"at most {MOST_NAMES:,}")
    fields: dict[str, tuple[int, bytes]] = {}
    for _ in range(keys):
        name = header.name(fields, "key")
        fields[name] = _value(header, name)
    kind, architecture = fields.get("general.architecture", (STRING, b""))
    _require(kind == STRING and architecture != b"", "general.architecture", architecture, "a text")
    kind, alignment = fields.get("general.alignment", (UINT32, ALIGNMENT.to_bytes(4, "little")))
    step = int.from_bytes(alignment, "little")
    _require(kind == UINT32 and step.bit_count() == 1, "general.alignment", step, "a uint32, a power of two")
    _, layers = fields.get(f"{architecture.decode()}.block_count", (UINT32, b""))
    count = int.from_bytes(layers, "little")
    is_model = tensors > 0 or count == 0
    _require(is_model, "number of tensors", tensors, "above 0, as a vocabulary alone is no model", _NotSupportedError)
    _require(count <= tensors, "block_count", count, f"at most the number of tensors, {tensors}")
    _check_tensors(header, tensors, step)


def _value(header: _Header, key: str) -> tuple[int, bytes]:
    """Type and bytes of a key's value; none of an array's."""
    kind = header.number(4)
    if kind in SIZES:
        return kind, header.take(SIZES[kind])
    if kind == STRING:
        return kind, header.take(header.number(8))
    _require(kind == ARRAY, f"type of {key}", kind, "0 to 12")
    inner, length = header.number(4), header.number(8)
    header.entries += length
    _require(header.entries <= MOST_ENTRIES, f"entries of all arrays, with those of {key}", header.entries, "fewer")
    if inner in SIZES:
        header.skip(length * SIZES[inner])
    else:
        _require(inner == STRING, f"type of entries of {key}", inner, "a number's or a text's")
        for _ in range(length):
            header.skip(header.number(8))
    return kind, b""


def _check_tensors(header: _Header, count: int, alignment: int) -> None:
    """Each tensor has a type that is known, and lies behind the one before, as llama.cpp demands it.

    That one has no dimensions, or none of its numbers, is said only of a file that is whole.
    """
    names: set[str] = set()
    empty: dict[str, list[int]] = {}  # shapes
    types = {int(kind) for kind in GGML_QUANT_SIZES}
    end = 0
    for _ in range(count):
        name = header.name(names, "tensor")
        names.add(name)
        dimensions = header.number(4)
        _require(dimensions <= DIMENSIONS, f"number of dimensions of {name}", dimensions, f"1 to {DIMENSIONS}")
        shape = [header.number(8) for _ in range(dimensions)]
        if not (shape and all(shape)):
            empty[name] = shape
        kind, begin = header.number(4), header.number(8)
        _require(kind in types, f"type of {name}", kind, "one that gguf knows")
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        is_shape = prod(side or 1 for side in shape) < 1 << 60 and (shape or [1])[0] % block == 0
        _require(is_shape, f"shape of {name}", shape, f"divisible by {block} in its first number, and not huge")
        begins_at = -(-end // alignment) * alignment
        _require(begin == begins_at, f"offset of {name}", begin, f"{begins_at}, behind the tensor before")
        end = begin + prod(shape) // block * size
    data = -(-header.place // alignment) * alignment
    missing = data + end - len(header.content) if count else 0
    _require(missing <= 0, "size of the file", len(header.content), f"at least {data + end}, for its tensors")
    for name, shape in empty.items():
        _require(False, f"shape of {name}", shape, f"1 to {DIMENSIONS} numbers above 0", _NotSupportedError)
