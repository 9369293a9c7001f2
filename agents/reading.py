"""What the bare base makes of a text, before any adapter acts: read once, remembered by `agents.prefix_cache`.

Where the layers are computed here (`agents.layers`), and packed weights multiply each row alike in any company
(`agents.weights.products`), new texts are read together, one behind the other in one row of tokens, without filling
any up. Else each is read alone, as its last bits could depend on the texts beside it: torch, for one, computes the last
few numbers of an array one by one, with other last bits than whole vectors (seen in a model 48 wide).
"""

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from agents.attention import Asking, KeysValues, Reading, Sight
from agents.layers import Layers, is_known
from agents.prefix_cache import ReadText
from agents.types import UserError
from agents.weights.base_model import BaseModel
from agents.weights.frozen import can_be_steady
from agents.weights.products import steadily

TOKENS_AT_ONCE = 512
"""How many tokens are read together; it bounds the working memory."""

SomeLayers = Callable[[Tensor, Tensor, Sight], Tensor]
"""Hidden states (B, S, D), positions (B, S) or (1, S), on the CPU, whom they look at -> hidden states (B, S, D)."""


class TextReader:
    """Reads texts behind instructions, up to where adapters begin to act.

    device: where the model is. front_ids: the tokens that are read once and for all. first_layer: the first of the
    adapted layers. `top` computes these and the last norm. Where adapters act `on_text`, all tokens of a text go
    through them with adapters, and the bare base need only bring them there.
    """

    def __init__(self, base: BaseModel, device: torch.device, front_ids: list[int], first_layer: int, on_text: bool):
        self._base, self._device = base, device
        self.front_ids, self._first, self._on_text = front_ids, first_layer, on_text
        self._most = TOKENS_AT_ONCE if can_be_steady(base.decoder) else 1
        if is_known(base.decoder):
            self._trunk = Layers(base.decoder, 0, first_layer)
            self.top: SomeLayers = Layers(base.decoder, first_layer, base.layers)
        else:
            end = first_layer + 1 if on_text else base.layers
            self._reader = base.decoder if end == base.layers else some_layers(base.decoder, 0, end)
            self.top = TheirLayers(base.decoder, first_layer)
        self.instructions = self._read_instructions()
        """Of each layer, keys and values (V, I, d) of the instructions."""

    @torch.no_grad()
    def _read_instructions(self) -> list[KeysValues]:
        reading = Reading(None, 0, [len(self.front_ids)])
        ids = self.on_device(self.front_ids)
        if isinstance(self.top, TheirLayers):
            self._base.decoder(ids, use_cache=False, attend_as=reading)
        else:
            positions = torch.arange(len(self.front_ids))[None]
            embedded = self._base.decoder.get_input_embeddings()(ids)
            self.top(self._trunk(embedded, positions, reading), positions, reading)
        return [(k[0], v[0]) for k, v in reading.recorded]

    def on_device(self, ids: list[int]) -> Tensor:
        """Token ids of one row as the model takes them, (1, S)."""
        return torch.tensor([ids], dtype=torch.long, device=self._device)

    @torch.no_grad()
    def read(self, tokens: Sequence[list[int]]) -> list[ReadText]:
        """What the bare base makes of B texts, each its token ids behind the front, to the answer token."""
        for ids in tokens:
            self.check_length(len(ids))
        if isinstance(self.top, TheirLayers):
            return [self._read_alone(ids, self.top) for ids in tokens]
        read: dict[int, ReadText] = {}
        for together in self._companies(tokens):
            read |= zip(together, self._read_together([tokens[i] for i in together]), strict=True)
        return [read[i] for i in range(len(tokens))]

    def _companies(self, tokens: Sequence[list[int]]) -> Iterator[list[int]]:
        """Which of B rows of tokens are read together: as many as may be, those of one length beside each other."""
        waiting = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        while waiting:
            together = [waiting.pop()]
            count = len(tokens[together[0]])
            while waiting and (count := count + len(tokens[waiting[-1]])) <= self._most:
                together.append(waiting.pop())
            yield together

    @steadily()
    def _read_together(self, tokens: Sequence[list[int]]) -> list[ReadText]:
        """B texts in one row of S tokens, the shorter ones first."""
        lengths = [len(ids) for ids in tokens]
        texts = [length - 1 for length in lengths]  # without the answer token
        embedded = self._base.decoder.get_input_embeddings()(self.on_device([i for ids in tokens for i in ids]))
        positions = torch.cat([torch.arange(length) for length in lengths])[None] + len(self.front_ids)
        states = self._trunk(embedded, positions, Reading(self.instructions, self._base.layers, lengths))[0]  # (S, D)
        each = states.split(lengths)
        if self._on_text:
            return [ReadText(own.clone(), own[-1].clone()) for own in each]
        is_text = torch.cat([torch.arange(length) < length - 1 for length in lengths])
        reading = Reading(self.instructions, self._first, texts)
        self.top(states[None, is_text], positions[:, is_text], reading)
        parts = _stacked(reading).split(texts, dim=-2)
        return [ReadText(part, own[-1].clone()) for part, own in zip(parts, each, strict=True)]

    @torch.no_grad()
    def read_parts(self, tokens: Sequence[list[int]], places: Sequence[int]) -> list[ReadText]:
        """Keys and values of the tokens of B parts in all layers, (L, 2, V, S, d); each sees the instructions.

        places: how far behind the instructions each begins.
        """
        for ids, place in zip(tokens, places, strict=True):
            self.check_length(place + len(ids) + 1)
        read: dict[int, ReadText] = {}
        for together in self._companies(tokens):
            some = [tokens[i] for i in together], [places[i] for i in together]
            read |= zip(together, self._read_parts_together(*some), strict=True)
        return [read[i] for i in range(len(tokens))]

    @steadily()
    def _read_parts_together(self, tokens: Sequence[list[int]], places: Sequence[int]) -> list[ReadText]:
        lengths = [len(ids) for ids in tokens]
        embedded = self._base.decoder.get_input_embeddings()(self.on_device([i for ids in tokens for i in ids]))
        behind = [place + torch.arange(length) for place, length in zip(places, lengths, strict=True)]
        positions = torch.cat(behind)[None] + len(self.front_ids)
        reading = Reading(self.instructions, 0, lengths)
        self.top(self._trunk(embedded, positions, reading), positions, reading)
        return [ReadText(part.clone(), embedded.new_empty(0)) for part in _stacked(reading).split(lengths, dim=-2)]

    @torch.no_grad()
    @steadily()
    def enter(self, token: int, texts: list[Tensor], places: Tensor) -> Tensor:
        """Hidden states (B, D) with which the answer `token` of B texts enters the adapted layers.

        texts: by length, keys and values in the layers below of the n texts that come next, (F, 2, V, n, S, d).
        places: (B,), how far behind the instructions the token stands.
        """
        embedded = self._base.decoder.get_input_embeddings()(self.on_device([token]))  # (1, 1, D)
        if self._most == 1:  # each alone
            texts = [one for some in texts for one in some.split(1, dim=3)]
        together = [texts] if self._most > 1 else [[one] for one in texts]
        parts = zip(together, places.split(sum(one.shape[3] for one in together[0])), strict=True)
        return torch.cat([self._enter_together(embedded, *part) for part in parts])

    def _enter_together(self, embedded: Tensor, texts: list[Tensor], places: Tensor) -> Tensor:
        entering = embedded.expand(len(places), -1, -1).contiguous()
        positions = places[:, None] + len(self.front_ids)
        return self._trunk(entering, positions, Asking(self.instructions, texts))[:, 0]

    def _read_alone(self, tokens: list[int], top: "TheirLayers") -> ReadText:
        """One text of S tokens, through transformers' layers."""
        positions = torch.arange(len(tokens))[None] + len(self.front_ids)
        reading = Reading(self.instructions, self._first, [len(tokens)])
        entering: list[Tensor] = []
        reader = get_ident()

        def note(_: object, args: tuple[Tensor, ...]) -> None:
            if get_ident() == reader:  # another thread may be answering meanwhile
                entering.append(args[0][0])

        hook = top.first.register_forward_pre_hook(note)
        try:
            ids = self.on_device(tokens)
            self._reader(ids, position_ids=positions.to(ids.device), use_cache=False, attend_as=reading)
        finally:
            hook.remove()
        (states,) = entering  # (S, D)
        if self._on_text:
            return ReadText(states, states[-1].clone())
        return ReadText(_stacked(reading)[..., :-1, :], states[-1].clone())

    def check_length(self, tokens: int) -> None:
        """UserError where a prompt has more tokens than a layer can look back, which `Reading` does not know of.

        tokens: those behind what is read once, which are the instructions, or all of them but the last.
        """
        longest = longest_prompt(self._base.causal_lm.config)
        if len(self.front_ids) + tokens > longest:
            raise UserError(
                f"instructions and a text have {len(self.front_ids) + tokens} tokens: "
                f"must be at most {longest} for {self._base.name}"
            )


def _stacked(reading: Reading) -> Tensor:
    """The keys and values recorded of one row of S tokens: (K, 2, V, S, d)."""
    return torch.stack([torch.stack(pair) for pair in reading.recorded])[:, :, 0]


class TheirLayers:
    """The layers of a decoder from `first` on, as transformers computes them, and its last norm."""

    def __init__(self, decoder: Any, first: int):
        self._top, self.first = some_layers(decoder, first, len(decoder.layers)), decoder.layers[first]

    def __call__(self, hidden: Tensor, positions: Tensor, attend_as: Sight) -> Tensor:
        """What they make of hidden states (B, S, D) at positions (B, S) or (1, S)."""
        out: Tensor = self._top(
            inputs_embeds=hidden, position_ids=positions.to(hidden.device), use_cache=False, attend_as=attend_as
        ).last_hidden_state
        return out


def longest_prompt(config: Any) -> int:
    """How many tokens see one another in all layers of a model, by positions that mean the same.

    Longrope (Ding et al. 2024, arXiv:2402.13753) turns all tokens of a longer prompt otherwise, also those that were
    read and remembered before it became long.
    """
    names = ("max_position_embeddings", "sliding_window", "attention_chunk_size")
    limits = [getattr(config, name, None) for name in names]
    rope = getattr(config, "rope_parameters", None) or {}
    for one in rope.values() if all(isinstance(value, dict) for value in rope.values()) else [rope]:
        if one.get("rope_type") == "longrope" and one["short_factor"] != one["long_factor"]:
            limits.append(one["original_max_position_embeddings"])
    return min(limit for limit in (*limits, sys.maxsize) if limit)


def some_layers(decoder: Any, first: int, end: int) -> Any:
    """The same decoder, its modules shared, with only the layers from `first` to before `end`."""
    some = copy.deepcopy(decoder, {id(part): part for part in decoder.children()})
    some.layers = nn.ModuleList(decoder.layers[first:end])
    if getattr(decoder.config, "layer_types", None):  # read by place: Gemma3's layers differ in window and rotation
        some.config.layer_types = decoder.config.layer_types[first:end]
    return some
