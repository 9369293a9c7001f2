"""Texts that are read in parts: each part once, behind the instructions, as if no other part were there.

Where a text lists things, as "red ball is forward two, grey key is left one, go to grey key", texts hardly ever come
again, but their parts do: of the things of BabyAI there are some thousand, and reading a whole text costs fifty times
what the answer token does. So the keys and values of each part are kept in all layers, and a text is its parts side by
side. They stand all at the same place, right behind the instructions, and do not see each other; the answer token
stands behind the longest and sees all. Their order is lost, and nothing else: every part is read by the whole model.

This is Parallel Context Windows (Ratner et al. 2023, arXiv:2212.10947) with short windows that are kept, as Prompt
Cache keeps modules of prompts (Gim et al. 2024, arXiv:2311.04934). Departure: nothing but the answer token reads the
parts together, not even a last part.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from agents.prefix_cache import PrefixCache, Recalled

MOST_TEXTS = 16_384
"""Of so many texts the answer token's way through the layers below the adapters is remembered (38 MB for SmolLM2)."""
ROWS_AT_ONCE = 64
"""How many answer tokens go that way together; it bounds the working memory."""

Enter = Callable[[list[Tensor], Tensor], Tensor]
"""Keys and values of B texts in the layers below, those of one length together, and places (B,) -> (B, D)."""


class _Text(NamedTuple):
    parts: list[str]
    place: int  # how many tokens the longest part has
    entering: Tensor  # (D,)


class PartsCache:
    """What is remembered of texts and of their parts; has the methods of `PrefixCache` that a network asks.

    parts: remembers the keys and values of parts in all layers. enter: the answer token's way through the first
    `below` layers. part_end: what ends a part.
    """

    def __init__(self, parts: PrefixCache, enter: Enter, below: int, part_end: str):
        self._parts, self._enter, self._below, self._part_end = parts, enter, below, part_end
        self._texts: OrderedDict[str, _Text] = OrderedDict()
        self._asked = self._misses = 0

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def bytes_used(self) -> int:
        """Bytes of what is held of the parts' tokens now."""
        return self._parts.bytes_used

    def take_counts(self) -> tuple[int, int]:
        """How many texts were asked for since this was last asked, and how many of them were new."""
        counts = self._asked, self._misses
        self._asked = self._misses = 0
        return counts

    def latest(self, count: int) -> list[str]:
        """The texts that were used last, at most so many, the last one at the end."""
        return list(self._texts)[-count:]

    def clear(self) -> None:
        """Forget all texts and parts."""
        self._texts.clear()
        self._parts.clear()

    def recall(self, texts: Sequence[str]) -> Recalled:
        """What the base made of B texts, reading what is new."""
        known = self._know(texts)
        number = {text: i for i, text in enumerate(known)}
        rows = torch.tensor([number[text] for text in texts])
        of_parts = [text.parts for text in known.values()]
        self._parts.know([part for parts in of_parts for part in parts])  # some may have been forgotten
        tokens, lengths = self._parts.joined(of_parts, rows, slice(self._below, None))
        entering = torch.stack([text.entering for text in known.values()])[rows]
        return Recalled(tokens, entering, lengths, torch.tensor([text.place for text in known.values()])[rows])

    def entering(self, texts: Sequence[str]) -> Tensor:
        """The hidden states (B, D) with which the answer tokens of B texts enter the adapted layers."""
        known = self._know(texts)
        return torch.stack([known[text].entering for text in texts])

    def _know(self, texts: Sequence[str]) -> dict[str, _Text]:
        """The distinct ones of `texts`, marked as used; new ones are read."""
        distinct = list(dict.fromkeys(texts))
        new = [text for text in distinct if text not in self._texts]
        self._asked += len(distinct)
        self._misses += len(new)
        known = {text: self._texts[text] for text in distinct if text in self._texts} | self._read(new)
        for text in distinct:
            self._texts[text] = known[text]
            self._texts.move_to_end(text)
        while len(self._texts) > MOST_TEXTS:
            self._texts.popitem(last=False)
        return {text: known[text] for text in distinct}

    def _read(self, texts: list[str]) -> dict[str, _Text]:
        """Read new texts, some at a time."""
        read: dict[str, _Text] = {}
        for start in range(0, len(texts), ROWS_AT_ONCE):
            read |= self._read_some({text: cut(text, self._part_end) for text in texts[start : start + ROWS_AT_ONCE]})
        return read

    def _read_some(self, of_parts: dict[str, list[str]]) -> dict[str, _Text]:
        """Those of one length together, of which an attention kernel's last bits depend."""
        self._parts.know([part for parts in of_parts.values() for part in parts])
        lengths = {text: [self._parts.length(part) for part in parts] for text, parts in of_parts.items()}
        in_order = sorted(of_parts, key=lambda text: sum(lengths[text]))
        tokens = [
            self._parts.joined([of_parts[text] for text in some], torch.arange(len(some)), slice(self._below))[0]
            for some in (list(alike) for _, alike in groupby(in_order, key=lambda text: sum(lengths[text])))
        ]
        entering = self._enter(tokens, torch.tensor([max(lengths[text]) for text in in_order]))
        states = zip(in_order, entering, strict=True)
        return {text: _Text(of_parts[text], max(lengths[text]), state.clone()) for text, state in states}


def cut(text: str, part_end: str) -> list[str]:
    """A text's parts, each with its end: "a, b" -> "a,", " b" where the end is a comma; at least one."""
    *ended, last = text.split(part_end)
    return [part + part_end for part in ended] + [last] * (bool(last.strip()) or not ended)
