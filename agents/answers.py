"""Answers that are remembered: the action logits of an adapter after a text, as long as the adapter does not change.

All are dropped when the bank changes, but for those that were kept (`Answers.keep`) of the adapters that stay the same,
as the elite's do from one generation to the next. Checkpoints hold these, so that a run that goes on from one asks what
a run that was never stopped asks: last bits of an answer hang on what is answered with it.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.lora import AdapterBank

Known = dict[tuple[int, str], np.ndarray]
"""Logits (A,) by adapter, -1 for the bare base, and text."""


class _Kept(NamedTuple):
    texts: list[str]  # T
    logits: Tensor  # (P, T, A), NaN where an adapter was not asked
    adapters: list[bytes]  # P digests of what the adapters were


class Answers:
    """The answers of P adapters, with A actions.

    is_first: nobody has asked since the bank changed; whoever answers somebody sets it to False.
    """

    def __init__(self, bank: AdapterBank, actions: int):
        self.is_first = True
        self._bank, self._actions = bank, actions
        self._known: Known = {}
        self._version = -1  # of the bank that they are of
        self._kept: _Kept | None = None

    def known(self) -> Known:
        """What is known of the adapters as they are now; whoever computes more adds it."""
        if self._version != (version := self._bank.acting_version):
            self.forget()
            self._version = version
            self._recall()
        return self._known

    def forget(self) -> None:
        """Drop all but those that were kept."""
        self._known.clear()
        self._version, self.is_first = -1, True

    @property
    def kept(self) -> Tensor:
        """The answers that were kept, (P, T, A), NaN where there is none, as `restore` needs them."""
        return self._kept.logits if self._kept else torch.zeros(len(self._bank), 0, self._actions)

    def keep(self, texts: Sequence[str]) -> None:
        """Keep those of each adapter to these T texts, and drop all others."""
        number = {text: i for i, text in enumerate(texts)}
        logits = torch.full((len(self._bank), len(texts), self._actions), torch.nan)
        for (owner, text), answer in self.known().items():
            if owner >= 0 and text in number:
                logits[owner, number[text]] = torch.from_numpy(answer)
        self.restore(texts, logits)

    def restore(self, texts: Sequence[str], logits: Tensor) -> None:
        """Keep these answers (P, T, A) of the adapters as they are now to T texts, NaN where there is none."""
        self._kept = _Kept(list(texts), logits, _digests(self._bank.acting))
        self.forget()

    def _recall(self) -> None:
        """Know what was kept of the adapters that are the same."""
        if kept := self._kept:
            same = [a == b for a, b in zip(kept.adapters, _digests(self._bank.acting), strict=True)]
            self._kept = kept if any(same) else None  # so that nobody who learns after each step comes here again
            for owner in np.flatnonzero(same).tolist():
                answers = zip(kept.texts, kept.logits[owner].numpy(), strict=True)
                self._known |= {(owner, text): answer for text, answer in answers if np.isfinite(answer).all()}


def _digests(values: Tensor) -> list[bytes]:
    """By which adapters (P, F) are known again."""
    return [hashlib.blake2b(row.numpy(), digest_size=16).digest() for row in values.cpu()]
