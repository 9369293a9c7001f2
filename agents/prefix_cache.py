"""Remembers what the frozen base makes of a text: a bounded cache of keys, values and hidden states.

What no adapter touches is a pure function of the text: the same for every agent, generation and update. What of it is
kept of each token is up to `agents.policy_network`: for adapters on the answer token only, the keys and values of the
text's tokens in the K adapted layers; for adapters on the whole text, the hidden states with which all tokens enter
those layers. Besides, the hidden state with which the answer token enters them is kept of each text.

A text's numbers must be the same to the last bit whatever is read with it or was read before, or a run that goes on
from a checkpoint, with nothing remembered, would not equal one that was never stopped (`agents.reading`).
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from math import prod
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from agents.device import CPU
from agents.reused import Reused

Text = TypeVar("Text", bound=Hashable)
"""A text, or whatever says what is to be read."""


FEWEST_ROWS, MOST_BLOCKS = 32, 4
"""Rows in a block of texts of about one length, at least, and how many blocks there are at most. Of 160 of
BabyAI-Text's texts the longest has 160 tokens, and the mean 95."""


class ReadText(NamedTuple):
    """What the base made of one text of S tokens."""

    tokens: Tensor  # (..., S, d), what is kept of each token
    entering: Tensor  # (D,), the answer token's hidden state before the first adapted layer; of a part (0,)


class Block(NamedTuple):
    """What is remembered of the tokens of some of B texts, padded to the longest of them."""

    rows: Tensor  # (T,) which texts, on the CPU
    lengths: Tensor  # (T,) tokens kept of each, on the CPU
    tokens: Tensor  # (..., T, S, d)


class Recalled(NamedTuple):
    """What is remembered of B texts, those of about one length together."""

    blocks: list[Block]
    entering: Tensor  # (B, D)
    places: Tensor  # (B,) how far behind the instructions the answer token stands, on the CPU


class _Entry(NamedTuple):
    slots: Tensor  # (S,) token places in the arena, on the CPU
    entering: Tensor  # (D,)


class PrefixCache(Generic[Text]):
    """A least-recently-used cache of read texts in an arena of token places, bounded in bytes.

    `read` maps new texts to a `ReadText` each. `shape`: (..., d), of what is kept of a token, on `device`.
    The bound gives way only to a single call whose own texts need more. most_blocks: into how many blocks of about one
    length `recall` may divide its texts. Beside the arena stands the memory of what was recalled last (`reused`).
    """

    def __init__(
        self,
        read: Callable[[Sequence[Text]], Sequence[ReadText]],
        shape: tuple[int, ...],
        max_bytes: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device = CPU,
        most_blocks: int = MOST_BLOCKS,
    ):
        self.bytes_per_token = prod(shape) * dtype.itemsize
        self._max_tokens = max_bytes // self.bytes_per_token
        self._read, self._most_blocks = read, most_blocks
        self._arena = torch.empty(*shape[:-1], self._max_tokens, shape[-1], dtype=dtype, device=device)
        self._reused = Reused()
        self._free = list(range(self._max_tokens - 1, -1, -1))
        self._entries: OrderedDict[Text, _Entry] = OrderedDict()
        self._asked = self._misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes_used(self) -> int:
        """Bytes of what is held of tokens now."""
        return self._tokens_held * self.bytes_per_token

    @property
    def _tokens_held(self) -> int:
        return self._arena.shape[-2] - len(self._free)

    def take_counts(self) -> tuple[int, int]:
        """How many texts were asked for since this was last asked, and how many of them had to be read."""
        counts = self._asked, self._misses
        self._asked = self._misses = 0
        return counts

    def latest(self, count: int) -> list[Text]:
        """The texts that were used last, at most so many, the last one at the end."""
        return list(self._entries)[-count:]

    def clear(self) -> None:
        """Forget all texts."""
        for text in list(self._entries):
            self._forget(text)
        self._reused.clear()

    def recall(self, texts: Sequence[Text]) -> Recalled:
        """What the base made of B texts, reading those that are new."""
        entering = self.entering(texts)
        return Recalled(self.in_blocks([[t] for t in texts]), entering, torch.tensor([self.length(t) for t in texts]))

    def entering(self, texts: Sequence[Text]) -> Tensor:
        """The hidden states (B, D) with which the answer tokens of B texts enter the adapted layers."""
        self.know(texts)
        return torch.stack([self._entries[t].entering for t in texts])

    def know(self, texts: Sequence[Text]) -> list[Text]:
        """Read what is new of `texts`, mark all as used, and return them without repetition."""
        distinct = list(dict.fromkeys(texts))
        new = [t for t in distinct if t not in self._entries]
        self._asked += len(distinct)
        self._misses += len(new)
        for text in distinct:
            if text in self._entries:
                self._entries.move_to_end(text)
        if new:
            self._keep(dict(zip(new, self._read(new), strict=True)), protected=set(distinct))
        return distinct

    def length(self, text: Text) -> int:
        """How many tokens are kept of a text that is known."""
        return len(self._entries[text].slots)

    def joined(self, texts: Sequence[Sequence[Text]], first: slice = slice(None)) -> Tensor:
        """What is kept of the tokens of known texts, some of them one behind the other, for each of B rows.

        first: some of the first axis of what is kept. Returns (..., B, S, d), padded to the longest row.
        """
        slots = [torch.cat([self._entries[t].slots for t in some]) for some in texts]
        places = pad_sequence(slots, batch_first=True)  # (B, S)
        kept, at = self._arena[first], places.flatten().to(self._arena.device)
        is_plain = kept.device == CPU and kept.dtype == torch.float32
        found = self._reused.empty(*kept.shape[:-2], len(at), kept.shape[-1]) if is_plain else None
        return torch.index_select(kept, -2, at, out=found).unflatten(-2, places.shape)

    def in_blocks(self, texts: Sequence[Sequence[Text]], first: slice = slice(None)) -> list[Block]:
        """The same, rows of about one length together where there are many: padding costs as much as tokens.

        A single block has the rows in the order of `texts`.
        """
        lengths = torch.tensor([sum(map(self.length, some)) for some in texts])
        count = max(1, min(self._most_blocks, len(texts) // FEWEST_ROWS))
        in_order = lengths.argsort(stable=True) if count > 1 else torch.arange(len(texts))
        return [
            Block(rows, lengths[rows], self.joined([texts[i] for i in rows.tolist()], first))
            for rows in in_order.tensor_split(count)
        ]

    def _keep(self, read: dict[Text, ReadText], protected: set[Text]) -> None:
        self._make_room(sum(tokens.shape[-2] for tokens, _ in read.values()), protected)
        for text, (tokens, entering) in read.items():
            slots = torch.tensor([self._free.pop() for _ in range(tokens.shape[-2])], dtype=torch.long)
            self._arena.index_copy_(-2, slots.to(self._arena.device), tokens)
            self._entries[text] = _Entry(slots, entering)

    def _make_room(self, needed: int, protected: set[Text]) -> None:
        for text in list(self._entries):
            if self._tokens_held + needed <= self._max_tokens:
                break
            if text not in protected:
                self._forget(text)
        lacking = needed - len(self._free)
        if lacking > 0:
            *others, places, d = self._arena.shape
            self._arena = torch.cat([self._arena, self._arena.new_empty(*others, lacking, d)], dim=-2)
            self._free.extend(range(places, places + lacking))

    def _forget(self, text: Text) -> None:
        self._free.extend(self._entries.pop(text).slots.tolist())
