"""Texts that are read in parts: each part once, behind the instructions, as if no other part were there.

Where a text lists things, as "red ball is forward two, grey key is left one, go to grey key", texts hardly ever come
again, but their parts do: of the things of BabyAI there are some thousand. Reading a whole text costs as much as its
tokens do, 46 on average or, where things are told twice, 81; in parts it costs one, the answer token. So the keys and
values of each part are kept in all layers, and a text is its parts side by side, which do not see each other. All stand
at the same place, right behind the instructions, but for the last: it stands behind the longest of the others, and the
answer token, which sees all, right behind it.

So what goes before the answer token goes before it in the model's positions too, and a model that copies what followed
the same words before can do it here. On BabyAI-Text SmolLM2-135M without training hardly does better than chance where
the last part stands with the others (docs/log.md), and `benchmarks.babyai` compares reading in parts with whole texts.

This is Parallel Context Windows (Ratner et al. 2023, arXiv:2212.10947) with short windows that are kept, as Prompt
Cache keeps modules of prompts (Gim et al. 2024, arXiv:2311.04934). Departure: nothing but the answer token reads the
parts together, not even the last part.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from agents.prefix_cache import PrefixCache, Recalled

MOST_TEXTS = 16_384
"""Of so many texts the hidden state of the answer token below the adapters is remembered (38 MB for SmolLM2)."""
ROWS_AT_ONCE = 64
"""How many answer tokens go that way together; it bounds the working memory."""

Enter = Callable[[list[Tensor], Tensor], Tensor]
"""Keys and values of B texts in the layers below, those of one length together, and places (B,) -> (B, D)."""


class Part(NamedTuple):
    """A part of a text, and how many tokens behind the instructions it begins."""

    text: str
    place: int


class _Text(NamedTuple):
    parts: list[Part]
    place: int  # of the answer token
    entering: Tensor  # (D,)


class PartsCache:
    """What is remembered of texts and of their parts; has the methods of `PrefixCache` that a network asks.

    parts: remembers the keys and values of parts in all layers. enter: the answer token's way through the first
    `below` layers. part_end: what ends a part.
    """

    def __init__(self, parts: PrefixCache[Part], enter: Enter, below: int, part_end: str):
        self._parts, self._enter, self._below, self._part_end = parts, enter, below, part_end
        self._texts: OrderedDict[str, _Text] = OrderedDict()
        self._asked = self._misses = 0

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def bytes_used(self) -> int:
        """Bytes of what is held of the parts' tokens and of the texts' answer tokens now."""
        return self._parts.bytes_used + sum(text.entering.nbytes for text in self._texts.values())

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
        blocks = self._parts.in_blocks([known[text].parts for text in texts], slice(self._below, None))
        entering = torch.stack([known[text].entering for text in texts])
        return Recalled(blocks, entering, torch.tensor([known[text].place for text in texts]))

    def entering(self, texts: Sequence[str]) -> Tensor:
        """The hidden states (B, D) with which the answer tokens of B texts enter the adapted layers."""
        known = {text: self._texts[text] for text in texts if text in self._texts}
        self._asked += len(known)
        known |= self._know([text for text in texts if text not in known])
        return torch.stack([known[text].entering for text in texts])

    def _know(self, texts: Sequence[str]) -> dict[str, _Text]:
        """The distinct ones of `texts`, marked as used, with all their parts in memory; new ones are read."""
        distinct = list(dict.fromkeys(texts))
        new = [text for text in distinct if text not in self._texts]
        self._asked += len(distinct)
        self._misses += len(new)
        known = {text: self._texts[text] for text in distinct if text in self._texts}
        placed = {text: one.parts for text, one in known.items()} | self._placed(new)
        self._parts.know([part for parts in placed.values() for part in parts])
        for start in range(0, len(new), ROWS_AT_ONCE):
            known |= self._read({text: placed[text] for text in new[start : start + ROWS_AT_ONCE]})
        for text in distinct:
            self._texts[text] = known[text]
            self._texts.move_to_end(text)
        while len(self._texts) > MOST_TEXTS:
            self._texts.popitem(last=False)
        return {text: known[text] for text in distinct}

    def _placed(self, texts: list[str]) -> dict[str, list[Part]]:
        """The parts of texts, the last one of each behind the longest of the others."""
        parts = {text: cut(text, self._part_end) for text in texts}
        others = {text: [Part(part, 0) for part in some[:-1]] for text, some in parts.items()}
        self._parts.know([part for some in others.values() for part in some])
        lengths = {text: map(self._parts.length, some) for text, some in others.items()}
        return {text: [*others[text], Part(parts[text][-1], max(lengths[text], default=0))] for text in texts}

    def _read(self, placed: dict[str, list[Part]]) -> dict[str, _Text]:
        """New texts, whose parts are known: those of one length together, of which a kernel's last bits depend."""
        lengths = {text: sum(map(self._parts.length, parts)) for text, parts in placed.items()}
        in_order = sorted(placed, key=lengths.__getitem__)
        tokens = [
            self._parts.joined([placed[text] for text in alike], slice(self._below))
            for alike in (list(some) for _, some in groupby(in_order, key=lengths.__getitem__))
        ]
        places = {text: parts[-1].place + self._parts.length(parts[-1]) for text, parts in placed.items()}
        entering = self._enter(tokens, torch.tensor([places[text] for text in in_order]))
        states = zip(in_order, entering, strict=True)
        return {text: _Text(placed[text], places[text], state.clone()) for text, state in states}


def cut(text: str, part_end: str) -> list[str]:
    """A text's parts, each with its end: "a, b" -> "a,", " b" where the end is a comma; at least one."""
    *ended, last = text.split(part_end)
    return [part + part_end for part in ended] + [last] * (bool(last.strip()) or not ended)
