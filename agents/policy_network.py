"""From texts to action logits: the frozen base reads, the adapters answer on the last token, or read along.

Adapters are PEFT's activated LoRA (Greenewald et al. 2025, arXiv:2504.12397): they act from an invocation token on.
With adapter.tokens = `answer` that is the answer token: instructions and text are read by the bare base, and agents
differ only in the one token after them. With `text` it is the last token of the instructions, which is read with each
text: agents differ in all tokens from there on, but not below the adapted layers. Where a codec says what ends a part
of a text, parts are read apart (`agents.parts_cache`), and adapters act on the answer token. `action_logits` computes
just the tokens that adapters act on, in the adapted layers, from memory; `plain_logits` computes everything anew
through the same modules, the slow way that tests hold the fast one to.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor, nn

from agents.attention import Recollection, Rereading, TextBlock
from agents.codecs.codec import TextCodec, part_end_of
from agents.formats.peft import load_adapter, save_adapter
from agents.layers import is_known
from agents.lora import AdapterBank
from agents.parts_cache import Part, PartsCache, cut
from agents.prefix_cache import MOST_BLOCKS, PrefixCache, ReadText, Recalled
from agents.reading import TextReader
from agents.types import UserError
from agents.weights.base_model import BaseModel
from agents.weights.frozen import product_dtype

READ_IN_PARTS = (
    "It was trained on texts whose parts are read apart (`part_end` of its codec). PEFT reads a text whole, and comes "
    "to other answers."
)
"""For the README of an adapter."""


class PolicyNetwork:
    """A base model that reads the texts of one kind of world, and a bank of adapters that answer.

    invocations: the token from which adapters act, for each value of adapter.tokens. is_batched: as in
    `agents.backends.Backend`; beside others, one token more costs little, and a whole text what it costs alone.
    """

    def __init__(self, base: BaseModel, bank: AdapterBank, codec: TextCodec, prefix_cache_mb: int = 64):
        self.base, self.bank = base, bank
        self._reads_alone = Lock()  # texts are read and remembered by one thread at a time
        self.instruction_ids = [*base.beginning, *base.tokens(codec.instructions)]
        self.answer_id = base.one_token(codec.answer)
        self.action_ids = [base.one_token(word) for word in codec.action_words]
        if len(set(self.action_ids)) < len(self.action_ids):
            raise UserError(f"action words {tuple(codec.action_words)}: must all be different tokens")
        if not base.tokens(codec.instructions):
            raise UserError("codec.instructions is empty: must hold at least one token")
        self.invocations = {"answer": self.answer_id, "text": self.instruction_ids[-1]}
        self._acts_on_text = bank.config.tokens == "text"
        self.part_end = part_end_of(codec)
        """What ends a part of a text, where parts are read apart; else empty."""
        self._front_ids = self.instruction_ids[:-1] if self._acts_on_text else self.instruction_ids  # read once
        if self._acts_on_text and self.part_end:
            raise UserError("adapter.tokens = 'text': must be 'answer' with a codec whose texts are read in parts")
        if not self._front_ids:
            raise UserError("codec.instructions is one token: must be more with adapter.tokens = 'text'")
        self.is_batched = not self._acts_on_text
        self.is_compact = bool(base.blocks)
        self.rows_at_once = 64 if self.is_compact or self._acts_on_text else 640
        """How many texts are answered or learnt from together; it bounds the working memory."""
        self.first_layer = base.layers - bank.config.top_layers
        base.causal_lm.set_attn_implementation("terrarium")
        # Last step in float32: near 29, bfloat16 logits are 0.125 apart.
        rows = base.head_rows(torch.tensor(self.action_ids))
        self.head, self.head_bias = (x.to(self.device) for x in rows)  # (A, D), (A,)
        self._try_out(f" {codec.action_words[0]}")
        self.cache = self._new_cache(prefix_cache_mb << 20)

    @property
    def width(self) -> int:
        """Width D of the hidden states."""
        return self.base.causal_lm.config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the model and the bank are; what is asked and answered is on the CPU."""
        return self.bank.values.device

    def action_logits(
        self,
        texts: Sequence[str],
        adapters: Tensor | None,
        values: Tensor | None = None,
        counts: Sequence[int] | None = None,
    ) -> Tensor:
        """Logits (B, A) in float32, on the CPU, of the action words after B texts, at least one.

        adapters: (G,) indices into the bank; the texts are G groups, in order. None: the bare base. values: (P, F),
        other adapters than the bank's. counts: how many texts each group has; None: B / G. Gradients reach the adapters
        only.
        """
        counts = counts if counts and min(counts) < max(counts) else None
        copies = 1 if self._acts_on_text or adapters is None or counts else _copies(texts, len(adapters))
        with self._reads_alone:
            recalled = self.cache.recall(texts[: len(texts) // copies])
        with self.bank.using(adapters, values, counts):
            if self._acts_on_text:
                return self._logits(self._along_texts(recalled))
            return self._logits(self._after_texts(recalled, copies))

    def _after_texts(self, recalled: Recalled, copies: int) -> Tensor:
        """Final hidden states (B, D) of the answer tokens, which alone go through the adapted layers.

        copies: how many groups read all of these texts; their rows stand one group after the other.
        """
        positions = (len(self.instruction_ids) + recalled.places).repeat(copies)[:, None]
        entering = recalled.entering.repeat(copies, 1)[:, None]
        return self.reader.top(entering, positions, self._recollection(recalled, copies))[:, 0]

    def _along_texts(self, recalled: Recalled) -> Tensor:
        """The same where all tokens go through them: short texts are filled up behind, where nobody looks."""
        (block,) = recalled.blocks
        rows, longest, _ = block.tokens.shape
        positions = torch.arange(longest)[None] + len(self._front_ids)
        hidden = self.reader.top(block.tokens, positions, Rereading(self.reader.instructions, block.lengths))
        return hidden[torch.arange(rows), block.lengths - 1]

    @torch.no_grad()
    def answer(self, texts: Sequence[str], adapters: np.ndarray, values: Tensor | None = None) -> np.ndarray:
        """Logits (B, A) of the action words after B texts; adapters (B,): rows of `values`, -1 for the bare base.

        values: (P, F), other adapters than those that agents act by, `bank.acting`.
        """
        acting = self.bank.acting if values is None else values.to(self.device)
        logits = np.empty((len(texts), len(self.action_ids)), np.float32)
        bare = np.flatnonzero(adapters < 0)
        for start in range(0, len(bare), self.rows_at_once):
            rows = bare[start : start + self.rows_at_once]
            logits[rows] = self.action_logits([texts[i] for i in rows.tolist()], None).numpy()
        owned = np.flatnonzero(adapters >= 0)
        if len(owned):
            order = owned[np.argsort(adapters[owned], kind="stable")]
            everyone, counts = np.unique(adapters[order], return_counts=True)
            of_group = np.split(order, counts.cumsum()[:-1])
            parts = -(-len(order) // max(len(everyone), self.rows_at_once))
            for part in zip(*(np.array_split(own, parts) for own in of_group), strict=True):
                there = [g for g, own in enumerate(part) if len(own)]
                rows, groups = np.concatenate(part), torch.from_numpy(everyone[there])
                read = [texts[i] for i in rows.tolist()]
                logits[rows] = self.action_logits(read, groups, acting, [len(part[g]) for g in there]).numpy()
        return logits

    def features(self, texts: Sequence[str]) -> Tensor:
        """What a critic may see of B texts: (B, D), on the CPU, the answer token's hidden state below the adapters."""
        with self._reads_alone:
            return self.cache.entering(texts).cpu()

    def save_adapter(self, index: int, folder: Path | str, card: str = "") -> Path:
        """Write adapter `index` in PEFT's format, with `card` in its README; returns the folder."""
        if self.part_end:
            card = f"{READ_IN_PARTS}\n\n{card}"
        return save_adapter(
            folder,
            self.bank.read(index),
            self.bank.config,
            base_model=self.base.public_name,
            layers=self.base.layers,
            invocations=self.invocations,
            card=card,
        )

    def load_adapter(self, index: int, folder: Path | str) -> None:
        """Make the PEFT adapter in `folder` adapter `index`; ValueError, naming the folder, if it does not fit."""
        self.bank.write(index, load_adapter(folder, self.bank.shapes, self.bank.config, self.invocations))

    @torch.no_grad()
    def plain_logits(self, text: str, adapter: int | None) -> Tensor:
        """Logits (A,) of one text, everything computed anew and nothing remembered: the reference.

        Of a text in parts only with the layers of `agents.weights.llama`, where what was read is a list.
        """
        ids = [*self._front_ids, *self._tokens(text)]
        first = len(self._front_ids) if self._acts_on_text else len(ids) - 1  # on which adapters act
        with self._plain_attention():
            if self.part_end:
                return self._plain_logits_of_parts(text, adapter)
            before = self.base.decoder(self.reader.on_device(ids[:first]), use_cache=True).past_key_values
            with self.bank.using(None if adapter is None else torch.tensor([adapter])):
                out = self.base.decoder(self.reader.on_device(ids[first:]), past_key_values=before)
        return self._logits(out.last_hidden_state[0, -1])

    def _plain_logits_of_parts(self, text: str, adapter: int | None) -> Tensor:
        front, parts = len(self._front_ids), [self.base.tokens(part) for part in cut(text, self.part_end)]
        last = max(map(len, parts[:-1]), default=0)  # the place of the last part
        reads = []
        for place, part in zip([*[0] * (len(parts) - 1), last], parts, strict=True):
            prompt = self.reader.on_device([*self._front_ids, *part])
            places = torch.cat([torch.arange(front), front + place + torch.arange(len(part))])[None]
            reads.append(self.base.decoder(prompt, use_cache=True, position_ids=places).past_key_values)
        before = [  # of each layer, keys and values: the instructions, and then the parts alone
            tuple(torch.cat([x[0], *(y[:, :, front:] for y in x[1:])], dim=2) for x in zip(*layers, strict=True))
            for layers in zip(*reads, strict=True)
        ]
        behind = torch.tensor([[front + last + len(parts[-1])]])
        with self.bank.using(None if adapter is None else torch.tensor([adapter])):
            answer = self.reader.on_device([self.answer_id])
            out = self.base.decoder(answer, past_key_values=before, position_ids=behind)
        return self._logits(out.last_hidden_state[0, -1])

    def _logits(self, hidden: Tensor) -> Tensor:
        """The action words' rows of the output head alone: (..., D) -> (..., A), on the CPU."""
        return (hidden.float() @ self.head.T + self.head_bias).cpu()

    def _try_out(self, text: str) -> None:
        """Read the instructions and answer one text; UserError where the model computes in a way unknown here."""
        try:
            parts = self._front_ids, self.first_layer, self._acts_on_text
            self.reader = TextReader(self.base, self.device, *parts)
            if self.part_end and not is_known(self.base.decoder):
                raise NotImplementedError("texts are read in parts only through layers that are computed here")
            if len(self.reader.instructions) < self.base.layers:
                raise NotImplementedError("not all its layers ask for an attention function")
            self._check_logits(text)
        except UserError:
            raise
        except NotImplementedError as error:
            raise self._cannot_be_used(str(error)) from error
        except Exception as error:  # layers that were built otherwise fail in ways of their own
            raise self._cannot_be_used(f"{' '.join(str(error).split())} ({type(error).__name__})") from error

    @torch.no_grad()
    def _check_logits(self, text: str) -> None:
        """UserError where the plain way comes to other logits, as by a factor or a cap, or by its attention.

        It is transformers' own, or `agents.weights.llama`, which tests hold to that.

        From the same hidden state logits must be the same but for the last digits; on the whole way, products differ
        in their rounding. Both ways multiply the weights as they are held, in blocks or not.
        """
        ids, states = self.reader.on_device([*self._front_ids, *self._tokens(text)]), list[Tensor]()
        hook = self.base.decoder.register_forward_hook(lambda _, __, out: states.append(out.last_hidden_state[0, -1]))
        try:
            with self._plain_attention(), self._short_head():
                theirs = self.base.causal_lm(ids).logits[0, -1].float().cpu()
        finally:
            hook.remove()
        self.cache = self._new_cache(max_bytes=0)
        rounding = 0.01 if product_dtype(self.base.decoder) == "float32" else 0.05
        for ours, tolerance in ((self._logits(states[0]), 1e-4), (self.action_logits([text], None)[0], rounding)):
            if not (ours - theirs).abs().max() <= tolerance * theirs.abs().max():
                real, found = ([float(f"{logit:.5g}") for logit in row.tolist()] for row in (theirs, ours))
                raise self._cannot_be_used(f"its logits are {real}, and here they come out as {found}")

    def _cannot_be_used(self, reason: str) -> UserError:
        kind = self.base.causal_lm.config.model_type
        return UserError(f"model.name = {self.base.name!r}: {kind} cannot be used yet: {reason}")

    @contextmanager
    def _short_head(self) -> Iterator[None]:
        """Within the block, the model's output head has the action words alone: compact memory is to spare the rest."""
        causal_lm, rows = self.base.causal_lm, nn.Linear(self.width, len(self.action_ids), device="meta")
        rows.weight, rows.bias = nn.Parameter(self.head, False), nn.Parameter(self.head_bias, False)
        whole = causal_lm.get_output_embeddings()
        causal_lm.set_output_embeddings(rows)
        try:
            yield
        finally:
            causal_lm.set_output_embeddings(whole)

    def _new_cache(self, max_bytes: int) -> PrefixCache[str] | PartsCache:
        heads, _, width = self.reader.instructions[0][0].shape
        if self.part_end:
            parts = PrefixCache(self._read_parts, (self.base.layers, 2, heads, width), max_bytes, device=self.device)
            return PartsCache(parts, partial(self.reader.enter, self.answer_id), self.first_layer, self.part_end)
        keys_values = (self.bank.config.top_layers, 2, heads, width)
        shape = (self.width,) if self._acts_on_text else keys_values
        blocks = 1 if self._acts_on_text else MOST_BLOCKS
        return PrefixCache(self._read, shape, max_bytes, device=self.device, most_blocks=blocks)

    @contextmanager
    def _plain_attention(self) -> Iterator[None]:
        """Within the block, the model computes in the plain way."""
        self.base.causal_lm.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.base.causal_lm.set_attn_implementation("terrarium")

    def _recollection(self, recalled: Recalled, copies: int) -> Recollection:
        rows, blocks = torch.arange(copies * len(recalled.entering)).view(copies, -1), []
        is_one = len(recalled.blocks) == 1  # of all rows, in their order
        for block in recalled.blocks:
            is_padding = (torch.arange(block.tokens.shape[-2]) >= block.lengths[:, None]).to(self.device)
            asking = slice(None) if is_one else rows[:, block.rows].flatten().to(self.device)
            blocks.append(TextBlock(asking, [(layer[0], layer[1]) for layer in block.tokens], is_padding))
        return Recollection(self.reader.instructions[self.first_layer :], blocks, self.first_layer)

    def _read(self, texts: Sequence[str]) -> list[ReadText]:
        """What the bare base makes of texts."""
        return self.reader.read([self._tokens(text) for text in texts])

    def _read_parts(self, parts: Sequence[Part]) -> list[ReadText]:
        return self.reader.read_parts([self._words(part.text) for part in parts], [part.place for part in parts])

    def _words(self, text: str) -> list[int]:
        """The tokens of a text or a part; UserError where there is none."""
        ids = self.base.tokens(text)
        if not ids:
            raise UserError(f"text {text!r}: must have at least one token")
        return ids

    def _tokens(self, text: str) -> list[int]:
        """The tokens of a prompt that are not read once and for all: up to the answer token, which is the last.

        UserError for a text in which adapters would begin to act: PEFT looks for the last invocation token.
        """
        ids = [*self.instruction_ids, *self._words(text), self.answer_id]
        if self._acts_on_text and self.instruction_ids[-1] in ids[len(self.instruction_ids) :]:
            token = self.base.tokenizer.decode(self.instruction_ids[-1:])
            raise UserError(
                f"text {text!r} or the answer word holds {token!r}: must not with adapter.tokens = 'text', "
                "since it is the last token of the instructions, from which adapters act"
            )
        return ids[len(self._front_ids) :]


def _copies(texts: Sequence[str], groups: int) -> int:
    """How many groups there are if all have the same texts, one group after the other; else 1."""
    rows = len(texts) // groups
    is_same = all(texts[start : start + rows] == texts[:rows] for start in range(rows, len(texts), rows))
    return groups if is_same else 1
