"""Answers by llama.cpp, from the base's own GGUF file: little memory, no torch in the answer.

An activated LoRA from the library: instructions and texts are decoded with no adapter, the answer token alone with it.
The instructions stay in llama.cpp's cache, texts of a batch share them and are decoded together. An adapter acts on a
whole context, so agents never share a batch: each one's answer tokens are a decode of their own, through all layers
and the whole output head. That makes a population slower here than in torch, and one agent quick.
"""

import ctypes
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from llama_cpp import llama_cpp as lib

from agents.backends import require_alive, require_answer_token
from agents.formats.gguf import Shape, save_gguf_adapter
from agents.formats.gguf_header import check_gguf
from agents.types import UserError

if TYPE_CHECKING:
    from agents.policy_network import PolicyNetwork

CELLS = 1024
"""Tokens of texts and answers that are held at once."""
SEQUENCES = 64
"""Texts that are held at once."""


_TRIAL = "import sys, pathlib, agents.backends.llama_cpp as backend; backend.try_out(pathlib.Path(sys.argv[1]))"
_REBUILD = (
    "llama-cpp-python is built for the processor that pip finds, and a virtual machine may forbid instructions that "
    "its processor reports; reinstall it without them: CMAKE_ARGS=-DGGML_NATIVE=OFF pip install --force-reinstall "
    "--no-cache-dir --no-deps llama-cpp-python"
)


class Token(NamedTuple):
    """One token to decode."""

    id: int
    position: int
    sequence: int


_errors: list[str] = []
_ERROR = 4
"""ggml's level of errors."""


@lib.llama_log_callback
def _listen(level: int, text: bytes, _: object) -> None:
    """Keep llama.cpp's errors, for whoever reports them, and nothing else of what it says."""
    if level == _ERROR:
        _errors.append(" ".join(text.decode(errors="replace").split()))


def _reason() -> str:
    reason = "; ".join(_errors) or "it gave no reason"
    _errors.clear()
    return reason


class Place(NamedTuple):
    """A text in the cache."""

    ids: list[int]
    sequence: int


class LlamaCpp:
    """Answers as `network` does, within the rounding of the GGUF file's number format and of llama.cpp's activations.

    gguf: another file of the same model, as one in another number format; the base's own if None.
    threads: torch's number if 0.
    """

    is_batched = False

    def __init__(self, network: "PolicyNetwork", gguf: Path | None = None, threads: int = 0):
        require_answer_token(network, "llama.cpp")
        self.network = network
        self._shape = Shape.of(network.base.causal_lm.config)
        self._prefix = len(network.instruction_ids)
        file = gguf or network.base.gguf
        check_gguf(file)  # what is broken can end a process there
        require_alive("llama.cpp", _TRIAL, str(file), hint=_REBUILD)
        self._runtime = Runtime(file, self._prefix + CELLS, threads or torch.get_num_threads())
        if self._runtime.vocabulary != network.base.causal_lm.config.vocab_size:
            raise UserError(f"{file}: has {self._runtime.vocabulary} tokens, not {network.base.name}'s")
        self._runtime.decode([Token(token, i, 0) for i, token in enumerate(network.instruction_ids)])
        self._version = -1
        self._load_adapters()

    def answer(self, texts: Sequence[str], adapters: np.ndarray) -> np.ndarray:
        """Logits (B, A) of the action words after B texts; adapters (B,): rows of the bank, -1 for the bare base."""
        if self._version != self.network.bank.version:
            self._load_adapters()
        keys = list(zip(adapters.tolist(), texts, strict=True))
        answers: dict[tuple[int, str], np.ndarray] = {}
        for portion in self._portions(list(dict.fromkeys(texts))):
            self._read(portion)
            for adapter in sorted({adapter for adapter, text in keys if text in portion}):
                own = list(dict.fromkeys(text for owner, text in keys if owner == adapter and text in portion))
                logits = self._act(adapter, [portion[text] for text in own])
                answers.update({(adapter, text): row for text, row in zip(own, logits, strict=True)})
        rows = [answers[key] for key in keys]
        return np.array(rows, np.float32).reshape(len(texts), len(self.network.action_ids))

    def _read(self, portion: dict[str, Place]) -> None:
        """Decode texts together with no adapter, each after the instructions."""
        self._runtime.set_adapter(None)
        self._runtime.share_first(len(portion))
        self._runtime.decode(
            [
                Token(id, self._prefix + i, place.sequence)
                for place in portion.values()
                for i, id in enumerate(place.ids)
            ]
        )

    def _act(self, adapter: int, places: list[Place]) -> np.ndarray:
        """Logits (T, A) after the answer token of T texts that have been read, with an adapter."""
        self._runtime.set_adapter(None if adapter < 0 else self._adapters[adapter])
        end = [(self._prefix + len(place.ids), place.sequence) for place in places]
        tokens = [Token(self.network.answer_id, position, sequence) for position, sequence in end]
        logits = self._runtime.decode(tokens, columns=self.network.action_ids)
        self._runtime.forget(tokens)
        return logits

    def _portions(self, texts: list[str]) -> list[dict[str, Place]]:
        """Texts with their places in the cache, as many together as it holds; UserError for one that is too long."""
        portions: list[dict[str, Place]] = []
        room = 0
        for text in texts:
            ids = self.network.base.tokens(text)
            if len(ids) >= CELLS:
                raise UserError(f"a text has {len(ids)} tokens: must be below {CELLS} for llama_cpp")
            if len(ids) >= room or len(portions[-1]) == SEQUENCES:
                portions.append({})
                room = CELLS
            portions[-1][text] = Place(ids, len(portions[-1]) + 1)
            room -= len(ids) + 1  # and an answer token
        return portions

    def _load_adapters(self) -> None:
        bank = self.network.bank
        with tempfile.TemporaryDirectory() as box:
            files = [
                save_gguf_adapter(
                    Path(box) / f"{i}.gguf",
                    bank.read(i),
                    self._shape,
                    alpha=bank.config.alpha,
                    answer_id=self.network.answer_id,
                )
                for i in range(len(bank))
            ]
            self._adapters = self._runtime.load_adapters(files)
        self._version = bank.version


class Runtime:
    """A model and a context of llama.cpp; all that is allocated goes when this does."""

    def __init__(self, gguf: Path, cells: int, threads: int):
        lib.llama_log_set(_listen, ctypes.c_void_p(0))
        lib.llama_backend_init()
        _errors.clear()
        self._allocated = ExitStack()
        self._free = weakref.finalize(self, self._allocated.close)
        model_parameters = lib.llama_model_default_params()
        model_parameters.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(str(gguf).encode(), model_parameters)
        if not self._model:
            raise UserError(f"{gguf}: llama.cpp cannot load it ({_reason()})")
        self._allocated.callback(lib.llama_model_free, self._model)  # frees its adapters too
        self._context: Any = lib.llama_init_from_model(self._model, _context_parameters(cells, threads))
        if not self._context:
            raise RuntimeError(f"{gguf}: llama.cpp made no context of {cells} cells ({_reason()})")
        self._allocated.callback(lib.llama_free, self._context)
        self._batch = lib.llama_batch_init(cells, 0, 1)
        self._allocated.callback(lib.llama_batch_free, self._batch)
        self._memory = lib.llama_get_memory(self._context)
        self._adapters: list[Any] = []

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))

    def decode(self, tokens: Sequence[Token], columns: Sequence[int] = ()) -> np.ndarray:
        """Decode tokens in one batch; returns `columns` of the logits after each (T, A), none if none are asked."""
        if not tokens:
            return np.empty((0, len(columns)), np.float32)
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token.id, token.position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, token.sequence
            batch.logits[i] = bool(columns)
        code = lib.llama_decode(self._context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode of {len(tokens)} tokens returned {code} ({_reason()})")
        if not columns:
            return np.empty((len(tokens), 0), np.float32)
        rows = [lib.llama_get_logits_ith(self._context, i) for i in range(len(tokens))]
        return np.array([[row[column] for column in columns] for row in rows], np.float32)

    def share_first(self, count: int) -> None:
        """Begin sequences 1 to `count` anew as what sequence 0 holds; other sequences than 0 are forgotten."""
        for sequence in range(1, SEQUENCES + 1):
            self._remove(sequence, -1)
        for sequence in range(1, count + 1):
            lib.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)

    def forget(self, tokens: Sequence[Token]) -> None:
        """Take these tokens, each the last of its sequence, out of the cache."""
        for token in tokens:
            self._remove(token.sequence, token.position)

    def _remove(self, sequence: int, start: int) -> None:
        if not lib.llama_memory_seq_rm(self._memory, sequence, start, -1):
            raise RuntimeError(f"llama.cpp cannot remove tokens of sequence {sequence} from position {start} on")

    def load_adapters(self, files: Sequence[Path]) -> list[Any]:
        """Load LoRA GGUF files in place of those loaded before."""
        self.set_adapter(None)
        for adapter in self._adapters:
            lib.llama_adapter_lora_free(adapter)
        self._adapters = []
        for file in files:
            adapter = lib.llama_adapter_lora_init(self._model, str(file).encode())
            if not adapter:
                raise UserError(f"{file}: llama.cpp cannot load it as an adapter of this model ({_reason()})")
            self._adapters.append(adapter)
        return self._adapters

    def set_adapter(self, adapter: Any | None) -> None:
        """Have an adapter act on all tokens decoded from now on; None: no adapter."""
        count = 0 if adapter is None else 1
        pointer: Any = lib.llama_adapter_lora_p_ctypes
        pointers, scales = (pointer * 1)(adapter), (ctypes.c_float * 1)(1.0)
        code = lib.llama_set_adapters_lora(self._context, pointers, count, scales)
        if code != 0:
            raise RuntimeError(f"llama_set_adapters_lora returned {code}")


def try_out(gguf: Path) -> None:
    """Decode some tokens, together and alone, as the backend does; where that is forbidden, the process is killed."""
    runtime = Runtime(gguf, 128, threads=1)
    for start, count in ((0, 64), (64, 1)):
        runtime.decode([Token(1, start + i, 0) for i in range(count)], columns=[0])


def _context_parameters(cells: int, threads: int) -> Any:
    parameters = lib.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = cells
    parameters.n_seq_max = SEQUENCES + 1
    parameters.kv_unified = True  # all sequences see the one copy of the instructions
    parameters.n_threads = parameters.n_threads_batch = threads
    # Either of these in float16, as is usual, moves logits by 0.01; so a float32 file gives torch's to five digits.
    parameters.type_k = parameters.type_v = lib.GGML_TYPE_F32
    parameters.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return parameters
