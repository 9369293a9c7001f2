"""A malformed GGUF file of any kind is refused in one sentence, quickly, and before any other reader sees it.

The kinds are those of llama.cpp's `test-gguf.cpp`, and others by which a reader in Python can be kept busy.
"""

import struct
import subprocess
import sys

import pytest

from agents.formats import gguf_header
from agents.formats.gguf_header import open_gguf
from agents.weights.fetch import ModelNotFound, model_folder

UINT8, UINT32, STRING, ARRAY, UINT64 = 0, 4, 8, 9, 10
F32, Q8_0 = 0, 8


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def text(content: str | bytes) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return u64(len(content)) + content


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + u32(kind) + value


def array(kind: int, length: int, entries: bytes = b"") -> bytes:
    return u32(kind) + u64(length) + entries


def tensor(name: str | bytes, shape: tuple[int, ...] = (32,), kind: int = F32, offset: int = 0) -> bytes:
    return text(name) + u32(len(shape)) + b"".join(map(u64, shape)) + u32(kind) + u64(offset)


ARCHITECTURE = key("general.architecture", STRING, text("llama"))
LAYERS = key("llama.block_count", UINT32, u32(1))


def content(
    keys: tuple[bytes, ...] = (ARCHITECTURE, LAYERS),
    tensors: tuple[bytes, ...] = (tensor("a"), tensor("b", offset=128)),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    keys_said: int | None = None,
    tensors_said: int | None = None,
    data: int = 256,
    alignment: int = 32,
) -> bytes:
    said = (len(tensors) if tensors_said is None else tensors_said, len(keys) if keys_said is None else keys_said)
    header = magic + u32(version) + b"".join((*map(u64, said), *keys, *tensors))
    return header + bytes(-len(header) % alignment) + bytes(data)


def with_key(*more: bytes) -> bytes:
    return content((ARCHITECTURE, LAYERS, *more))


def aligned(value: bytes, kind: int = UINT32) -> bytes:
    return with_key(key("general.alignment", kind, value))


HUGE = 1 << 60
MALFORMED = {
    "empty": (b"", "cannot mmap an empty file"),
    "three bytes": (b"GGU", "at byte 0 it says that 4 follow, and 3 do"),
    "another magic": (content(magic=b"GGML"), "its first four bytes = b'GGML'"),
    "a safetensors file": (u64(2) + b"{}" + bytes(30), "its first four bytes"),
    "version 0": (content(version=0), "version = 0: must be 2 or 3"),
    "version 1": (content(version=1), "version = 1: must be 2 or 3"),
    "version of the future": (content(version=4), "version = 4: must be 2 or 3"),
    "the other order of bytes": (content(version=3 << 24), "version = 50331648"),
    "cut after the version": (content()[:8], "at byte 8 it says that 8 follow, and 0 do"),
    "2^60 tensors": (content(tensors_said=HUGE), "number of tensors = 1152921504606846976"),
    "2^60 keys": (content(keys_said=HUGE), "number of keys = 1152921504606846976"),
    "more keys than there are": (content(keys_said=9), "it says that|name|type"),
    "fewer keys than there are": (content(keys_said=1), "dimensions of llama.block_count|shape|type"),
    "more tensors than there are": (content(tensors_said=9), "length of the tensor's name"),
    "a key's name of 2^60 bytes": (content((u64(HUGE),)), "length of the key's name"),
    "a key without a name": (with_key(key("", UINT8, b"1")), "length of the key's name"),
    "a key's name that is no text": (with_key(key(b"\xff\xfe", UINT8, b"1")), "codec can't decode"),
    "a key twice": (with_key(LAYERS), "key = 'llama.block_count': must be there once"),
    "an unknown type": (with_key(key("x", 13, u64(1))), "type of x = 13: must be 0 to 12"),
    "a huge type": (with_key(key("x", 0xFFFFFFFF, u64(1))), "type of x = 4294967295"),
    "a text of 2^60 bytes": (with_key(key("x", STRING, u64(HUGE))), "it says that 1152921504606846976 follow"),
    "a text of 2^64 - 1 bytes": (
        with_key(key("x", STRING, u64(2**64 - 1))),
        "it says that 18446744073709551615 follow",
    ),
    "an array of 2^60 numbers": (
        with_key(key("x", ARRAY, array(UINT8, HUGE))),
        "entries of all arrays, with those of x",
    ),
    "an array of 2^60 texts": (with_key(key("x", ARRAY, array(STRING, HUGE))), "entries of all arrays"),
    "an array longer than the file": (with_key(key("x", ARRAY, array(UINT64, 10**6))), "it says that 8000000 follow"),
    "an array of arrays": (with_key(key("x", ARRAY, array(ARRAY, 1, array(UINT8, 0)))), "type of entries of x = 9"),
    "an array of an unknown type": (with_key(key("x", ARRAY, array(99, 1))), "type of entries of x = 99"),
    "a text in an array longer than the file": (
        with_key(key("x", ARRAY, array(STRING, 2, text("a") + u64(HUGE)))),
        "it says that 1152921504606846976 follow",
    ),
    "no architecture": (content((LAYERS,)), "general.architecture = b'': must be a text"),
    "an architecture that is a number": (content((key("general.architecture", UINT32, u32(1)),)), "must be a text"),
    "an alignment of 0": (aligned(u32(0)), "general.alignment = 0"),
    "an alignment of 13": (aligned(u32(13)), "general.alignment = 13: must be a uint32, a power of two"),
    "an alignment that is a text": (aligned(text("32"), STRING), "general.alignment = "),
    "another alignment than the tensors have": (aligned(u32(1024)), "offset of b = 128: must be 1024"),
    "more layers than tensors": (
        content((ARCHITECTURE, key("llama.block_count", UINT32, u32(2**31)))),
        "block_count = 2147483648: must be at most the number of tensors, 2",
    ),
    "a tensor's name of 2^60 bytes": (content(tensors=(u64(HUGE),)), "length of the tensor's name"),
    "a tensor without a name": (content(tensors=(tensor(""),)), "length of the tensor's name"),
    "a tensor twice": (content(tensors=(tensor("a"), tensor("a", offset=128))), "tensor = 'a': must be there once"),
    "no dimensions, and cut short": (content(tensors=(tensor("a", ()),), data=0), "size of the file = "),
    "a dimension of 0, and huge": (
        content(tensors=(tensor("a", (0, 1 << 60)),)),
        "shape of a = [0, 1152921504606846976",
    ),
    "five dimensions": (content(tensors=(tensor("a", (2,) * 5),)), "number of dimensions of a = 5"),
    "2^31 dimensions": (content(tensors=(text("a") + u32(1 << 31),)), "number of dimensions of a = 2147483648"),
    "a dimension of 2^63": (content(tensors=(tensor("a", (1 << 63,)),)), "shape of a = [9223372036854775808]"),
    "a product that overflows": (content(tensors=(tensor("a", (1 << 32, 1 << 32)),)), "shape of a = "),
    "an unknown type of tensor": (content(tensors=(tensor("a", kind=99),)), "type of a = 99"),
    "a type of tensor that is gone": (content(tensors=(tensor("a", kind=4),)), "type of a = 4"),
    "half a block": (content(tensors=(tensor("a", (33,), Q8_0),)), "shape of a = [33]: must be divisible by 32"),
    "an offset beyond the file": (content(tensors=(tensor("a", offset=1 << 40),)), "offset of a = 1099511627776"),
    "an offset of 2^64 - 1": (content(tensors=(tensor("a", offset=2**64 - 1),)), "offset of a = 18446744073709551615"),
    "an offset between two numbers": (content(tensors=(tensor("a", offset=2),)), "offset of a = 2: must be 0"),
    "tensors on one another": (content(tensors=(tensor("a"), tensor("b", offset=64))), "offset of b = 64: must be 128"),
    "a hole between tensors": (content(tensors=(tensor("a"), tensor("b", offset=160))), "offset of b = 160: must be"),
    "data cut short": (content()[:-1], "size of the file = "),
    "no data": (content(data=0), "size of the file = "),
    "a tensor of 2^59 bytes": (content(tensors=(tensor("a", (1 << 57,)),)), "size of the file = "),
    "only zeros": (bytes(4096), "its first four bytes = "),
    "a header of zeros": (b"GGUF" + u32(3) + u64(5) + u64(5) + bytes(4096), "length of the key's name at byte 24 = 0"),
}

NOT_SUPPORTED = {
    "no dimensions": (content(tensors=(tensor("a", ()), tensor("b", offset=32))), "shape of a = []: must be 1 to 4"),
    "a dimension of 0": (content(tensors=(tensor("a", (32, 0)), tensor("b"))), "shape of a = [32, 0]: must be 1 to 4"),
    "a vocabulary alone": (content(tensors=(), data=0), "number of tensors = 0: must be above 0"),
}
"""What gguf-py and llama.cpp write: whole, and no model that can be run here."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TERRARIUM_CACHE", str(tmp_path / "cache"))


def test_a_file_that_is_whole_is_read(tmp_path):
    file = tmp_path / "model.gguf"
    for good in (content(), content(version=2), content(tensors=(), keys=(ARCHITECTURE,), data=0)):
        file.write_bytes(good)
        assert len(open_gguf(file).tensors) in (0, 2)
    twice_as_wide = key("general.alignment", UINT32, u32(64))
    tensors = tensor("a", (40,)), tensor("b", (32,), Q8_0, offset=192)
    file.write_bytes(content((ARCHITECTURE, LAYERS, twice_as_wide), tensors, data=192 + 34, alignment=64))
    assert [int(t.n_bytes) for t in open_gguf(file).tensors] == [160, 34]


@pytest.mark.parametrize("case", MALFORMED)
def test_it_is_refused_in_one_sentence(case, tmp_path, monkeypatch):
    broken, reason = MALFORMED[case]
    file = tmp_path / "model.gguf"
    file.write_bytes(broken)
    monkeypatch.setattr(gguf_header, "GGUFReader", lambda _: pytest.fail("another reader saw it"))
    with pytest.raises(ModelNotFound) as caught:
        model_folder(str(file))
    message = str(caught.value)
    assert message.startswith(f"{file}: is no GGUF file, or is cut short or damaged (")
    assert any(part in message for part in reason.split("|")), message
    assert "\n" not in message
    assert len(message) < len(str(file)) + 300
    assert not list((tmp_path / "cache" / "models").glob("[!.]*"))


@pytest.mark.parametrize("case", NOT_SUPPORTED)
def test_what_is_whole_and_cannot_be_run_is_not_called_damaged(case, tmp_path):
    whole, reason = NOT_SUPPORTED[case]
    file = tmp_path / "model.gguf"
    file.write_bytes(whole)
    with pytest.raises(ModelNotFound) as caught:
        model_folder(str(file))
    assert str(caught.value).startswith(f"{file}: is not supported ({reason}")


def test_all_of_them_together_take_no_memory(tmp_path):
    """In a process of its own, of which what it had at its most is known."""
    for i, (broken, _) in enumerate(MALFORMED.values()):
        (tmp_path / f"{i}.gguf").write_bytes(broken)
    with (tmp_path / "sparse.gguf").open("wb") as sparse:
        sparse.write(content(tensors_said=60_000, keys_said=60_000))
        sparse.truncate(1 << 40)
    code = (
        "import resource, sys\nfrom agents.formats.gguf_header import *\n"
        "begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nrefused = 0\n"
        "for file in sorted(Path(sys.argv[1]).glob('*.gguf')):\n"
        "    try:\n        check_gguf(file)\n    except ModelNotFound:\n        refused += 1\n"
        "print(refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun < 50_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == [str(len(MALFORMED) + 1), "True"]
