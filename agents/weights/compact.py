"""Frozen weights in 4 or 8 bits: blocks in a file, mapped into memory, unpacked where and when they are multiplied.

Blocks are llama.cpp's: 32 numbers of a row share a scale (Q8_0, Q4_0), or a scale and a minimum (Q4_1), in float16.
Where a model came from a GGUF file with such blocks, they are those of the file, bit for bit; else they are 8-bit and
made here. Our file is written once (`compact_writer`), into the cache, and holds everything else of the model as well,
by its own names.
Of the embedding, rows are unpacked as they are looked up.
"""

import ctypes
import hashlib
import json
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from agents.mapped import forget
from agents.sums import sha256_of
from agents.weights.cache import cache_dir, kept_folder
from agents.weights.fetch import source_gguf

M_MMAP_THRESHOLD = -3  # of mallopt, as in malloc.h
BLOCK = 32
ROWS_AT_ONCE = 512
"""Of a weight, that are unpacked together; it bounds the working memory."""
EMBEDDING = "embedding"
"""Its path among the blocks."""
FORMAT = b"4"
"""Of our folder; what was written in another is written anew."""
_SIZES = {"Q4_0": (18, BLOCK), "Q4_1": (20, BLOCK), "Q8_0": (34, BLOCK), "F16": (2, 1)}
"""Bytes of a block, and how many numbers it holds."""


class Blocks(NamedTuple):
    """A weight (D_out, D_in) in blocks."""

    kind: str  # Q4_0, Q4_1, Q8_0; or F16, for rows that do not divide into blocks
    raw: Tensor  # uint8 (D_out, bytes of a row)
    let_go: Callable[[], None] = lambda: None  # of the memory in which it was read; it is read again at need

    @property
    def columns(self) -> int:
        """D_in."""
        bytes_of_block, numbers = _SIZES[self.kind]
        return self.raw.shape[1] // bytes_of_block * numbers

    def unpacked(self) -> Tensor:
        """The weight (D_out, D_in), float32."""
        if self.kind == "F16":
            return self.raw.view(torch.float16).float()
        head = {"Q4_0": 2, "Q4_1": 4, "Q8_0": 2}[self.kind]
        blocks = self.raw.view(len(self.raw), -1, head + (BLOCK if self.kind == "Q8_0" else BLOCK // 2))
        scales = blocks[..., :head].contiguous().view(torch.float16).float()
        if self.kind == "Q8_0":
            return (blocks[..., head:].view(torch.int8).float() * scales).flatten(1)
        numbers = torch.empty(*blocks.shape[:2], BLOCK)
        numbers[..., : BLOCK // 2] = blocks[..., head:] & 15
        numbers[..., BLOCK // 2 :] = blocks[..., head:] >> 4
        if self.kind == "Q4_0":
            return numbers.sub_(8.0).mul_(scales).flatten(1)
        return numbers.mul_(scales[..., :1]).add_(scales[..., 1:]).flatten(1)


def unpacked(parts: Sequence[Blocks], dtype: torch.dtype) -> Tensor:
    """The rows of several weights as one (D_out, D_in), whose memory in the file is then let go."""
    weight = torch.empty(sum(len(part.raw) for part in parts), parts[0].columns, dtype=dtype)
    start = 0
    for part in parts:
        for rows in part.raw.split(ROWS_AT_ONCE):
            end = start + len(rows)
            weight[start:end] = part._replace(raw=rows).unpacked()
            start = end
        part.let_go()
    return weight


def compact_file(folder: Path, name: str, load: Callable[[], Any]) -> Path:
    """The cached file of the model `name` in blocks, written at need; `load` gives it in float32, from `folder`."""
    digests = "".join(sha256_of(weights) for weights in sorted(folder.glob("*.safetensors")))
    digest = hashlib.sha256(digests.encode() + FORMAT).hexdigest()[:12]
    kept = cache_dir() / "compact" / f"{Path(name).stem}-{digest}"

    def make(box: Path) -> None:
        from agents.weights.compact_writer import write  # slow to import, and seldom needed

        write(load(), source_gguf(name), box / "model.safetensors")

    return kept_folder(kept, make, f"writing {kept.name} for compact memory (once)") / "model.safetensors"


def layer_linears(causal_lm: Any) -> dict[str, nn.Linear]:
    """The linear modules of a model's layers, by path: `layers.N....`."""
    return {
        f"layers.{number}.{path}": module
        for number, layer in enumerate(causal_lm.base_model.layers)
        for path, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }


class BlockEmbedding(nn.Module):
    """An embedding of which only the rows that are asked for are unpacked."""

    def __init__(self, blocks: Blocks, scale: float):
        super().__init__()
        self._blocks, self._scale = blocks, scale

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids (...) to (..., D), float32."""
        return self.rows(ids) * self._scale

    def rows(self, ids: Tensor) -> Tensor:
        """The same before any factor: what a tied output head has for these tokens."""
        some = self._blocks._replace(raw=self._blocks.raw[ids.flatten()])
        self._blocks.let_go()  # for each row the system maps 64 KB
        return some.unpacked().view(*ids.shape, -1)


class StoredBlocks(Mapping[str, Blocks]):
    """The blocks of a safetensors file by path, mapped into memory: read when used, and let go at will."""

    def __init__(self, file: Path):
        with file.open("rb") as opened:
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        self._begin = 8 + int.from_bytes(self._map[:8], "little")
        self._header = json.loads(self._map[8 : self._begin])
        self._kinds = json.loads(self._header["__metadata__"]["kinds"])

    def __getitem__(self, path: str) -> Blocks:
        start, end = (self._begin + offset for offset in self._header[path]["data_offsets"])
        flat = torch.frombuffer(self._map, dtype=torch.uint8, offset=start, count=end - start)
        page = start // mmap.PAGESIZE * mmap.PAGESIZE
        let_go = partial(forget, self._map, page, end - page)
        return Blocks(self._kinds[path], flat.view(self._header[path]["shape"]), let_go)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)


def load_compact(file: Path, causal_lm: Any) -> tuple[Any, StoredBlocks]:
    """Give a model that is not there (on the meta device) its weights, but for the linear ones of its layers.

    Of these the blocks are returned, by path. The output head is not there either where it is tied to the embedding.
    All is mapped from `file` and read when it is used.
    """
    blocks = StoredBlocks(file)
    with safe_open(file, "pt") as opened:
        names = set(opened.keys()) - set(blocks)
        tensors = {name: opened.get_tensor(name) for name in names}
    causal_lm.load_state_dict(tensors, strict=False, assign=True)
    causal_lm.set_input_embeddings(BlockEmbedding(blocks[EMBEDDING], embed_scale(causal_lm)))
    in_blocks = {id(linear.weight) for path, linear in layer_linears(causal_lm).items() if path in blocks}
    if causal_lm.config.tie_word_embeddings:
        in_blocks.add(id(causal_lm.get_output_embeddings().weight))
    lacking = {n for n, p in causal_lm.named_parameters() if p.is_meta and id(p) not in in_blocks}
    if lacking:
        raise ValueError(f"{file} lacks {sorted(lacking)}")
    return causal_lm, blocks


def embed_scale(causal_lm: Any) -> float:
    """By which a model's embedding multiplies its rows; Gemma's does."""
    return float(getattr(causal_lm.get_input_embeddings(), "embed_scale", 1.0))


def spare_memory() -> None:
    """Have libraries hold on to less of the memory they are done with; to be called before the first product.

    oneDNN keeps the code that it made for the last products of other sizes, glibc what was freed.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    if sys.platform == "win32":  # there a process has no library of its own to ask
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, 1 << 16)  # what is larger goes back at once; else the bound grows with use
    trim_memory()


def trim_memory() -> None:
    """Have glibc give back what was freed and lies between what is held; other systems decide themselves."""
    if sys.platform.startswith("linux") and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
