"""From texts to actions: sampling with what is remembered, and the differentiable evaluation that learning needs."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.answers import Answers, Known
from agents.backends import Backend
from agents.codecs.codec import TextCodec
from agents.device import CPU, device_of
from agents.layers import is_known
from agents.lora import AdapterBank
from agents.policy_network import PolicyNetwork
from agents.types import AdapterConfig, ModelConfig, UserError, log
from agents.value_head import ValueHead
from agents.weights.base_model import load_base_model
from agents.weights.frozen import freeze
from agents.weights.int8 import quantise
from agents.weights.products import fastest_dtype, shortcoming

WHY_NOT_FINITE = "learn.learning_rate or adapter.alpha may be too large, or weights are damaged"


class Decision(NamedTuple):
    """What M agents chose."""

    action: np.ndarray  # (M,) int
    log_prob: np.ndarray  # (M,) float32, of the action chosen
    value: np.ndarray  # (M,) float32, the critic's estimate
    log_probs: np.ndarray  # (M, A) float32, of all actions, -inf where illegal


class Policy:
    """Softmax over the action words, as in GLAM (Carta et al. 2023, arXiv:2302.02662), illegal actions masked.

    Answers are remembered per adapter and text (`agents.answers`): a world repeats itself.
    """

    def __init__(self, network: PolicyNetwork, critic: ValueHead):
        self.network, self.critic = network, critic
        self.backend: Backend = network  # who answers; only torch learns
        self.answers = Answers(network.bank, len(network.action_ids))

    def answer_ahead(self, texts: Sequence[str], adapters: Sequence[int]) -> None:
        """Answer texts that will likely be met, for each of these adapters, together; later nothing need be computed.

        A few large batches take a third of the time of the many small ones in which texts turn up.
        """
        if self.backend.is_batched and texts and len(adapters):
            self._answer([(owner, text) for owner in adapters for text in texts], self.answers.known())

    def act(self, texts: Sequence[str], adapters: np.ndarray, legal: np.ndarray, rng: np.random.Generator) -> Decision:
        """Sample an action for each of M texts.

        adapters: (M,) index into the bank, -1 for the bare base. legal: (M, A) bool. Draws M numbers from `rng`.
        """
        if not legal.any(axis=1).all():
            raise UserError(f"no action is legal after text {texts[int(legal.any(axis=1).argmin())]!r}")
        log_probs = log_softmax(self.logits(texts, adapters), legal)  # (M, A)
        cumulative = np.exp(log_probs).cumsum(axis=1)
        draw = rng.random(len(texts))[:, None] * cumulative[:, -1:]
        action = (draw >= cumulative).sum(axis=1)
        value = self.values(texts)
        return Decision(action, np.take_along_axis(log_probs, action[:, None], axis=1)[:, 0], value, log_probs)

    @torch.no_grad()
    def logits(self, texts: Sequence[str], adapters: np.ndarray) -> np.ndarray:
        """Action logits (M, A), computed only where this adapter has not met this text since it last changed.

        UserError, naming the adapter, where they are not finite: nobody acts by chance that is none.
        """
        if not len(texts):
            return np.zeros((0, len(self.network.action_ids)), np.float32)
        keys = list(zip(np.asarray(adapters).tolist(), texts, strict=True))
        known = self.answers.known()  # once: a thread that learns may publish other adapters meanwhile
        asked = {key for key in keys if key not in known}
        # Whoever acts now will meet these texts too, and one pass serves all; but where adapters change after every
        # step, nobody comes to ask a second time, and texts that are read in parts hardly ever come again.
        if self.backend.is_batched and not self.answers.is_first and not self.network.part_end:
            everyone = {owner for owner, _ in keys}
            asked = {(owner, text) for _, text in asked for owner in everyone}
        self._answer(asked, known)
        self.answers.is_first = False
        return np.stack([known[key] for key in keys])

    @torch.no_grad()
    def _answer(self, asked: Iterable[tuple[int, str]], known: Known) -> None:
        """Compute those of these answers (adapter, text) that are not known, and add them."""
        new = sorted(key for key in set(asked) if key not in known)
        if new:
            owners, texts = zip(*new, strict=True)
            answers = self.backend.answer(texts, np.array(owners))
            if not np.isfinite(answers).all():
                raise _no_numbers(owners, texts, answers)
            known.update(zip(new, answers, strict=True))

    @torch.no_grad()
    def values(self, texts: Sequence[str]) -> np.ndarray:
        """The critic's estimates (M,) of M texts; UserError where one is not finite."""
        distinct = list(dict.fromkeys(texts))
        estimates = dict(zip(distinct, self.critic(self.network.features(distinct)).tolist(), strict=True))
        wrong = next((text for text, value in estimates.items() if not isfinite(value)), None)
        if wrong is not None:
            value = estimates[wrong]
            raise UserError(f"the critic's estimate after text {wrong!r} is {value}: must be finite; {WHY_NOT_FINITE}")
        return np.array([estimates[t] for t in texts], np.float32)

    def evaluate(self, texts: Sequence[str], adapters: Tensor, actions: Tensor, legal: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of `actions` (B,) and entropies (B,), differentiable with respect to the adapters.

        texts: B, as G groups of B / G. adapters: (G,) index into the bank. legal: (B, A) bool.
        """
        return chosen(self.weigh(texts, adapters), actions, legal)

    def weigh(self, texts: Sequence[str], adapters: Tensor) -> Tensor:
        """Action logits (B, A) of B texts, differentiable with respect to the adapters; as in `evaluate`."""
        distinct, counts, index = _distinct(texts, len(adapters))
        return self.network.action_logits(distinct, adapters, counts=counts)[index]


def make_policy(model: ModelConfig, adapter: AdapterConfig, codec: TextCodec, agents: int, seed: int) -> Policy:
    """A policy of `agents` newborns: load the model, put a bank of equal adapters on it, and a new critic.

    Raises ValueError where the model is not to be had, or does not fit the adapters or the codec's words.
    """
    device = device_of(model)
    log.info(f"opening {model.name}")
    base = load_base_model(model)
    if device != CPU:  # what the CPU alone can hold, as weights in blocks, is not all there to be moved
        base.causal_lm.to(device)
    bank = AdapterBank(base.causal_lm, adapter, agents, seed, device)
    first_adapted = base.layers - adapter.top_layers
    if model.dtype == "auto":
        log.info("measuring which number format is the faster one here")
    dtype = getattr(torch, fastest_dtype(device) if model.dtype == "auto" else model.dtype)
    if lacking := shortcoming(dtype, device):
        log.warning(f"note: {lacking}")
    freeze(base.decoder, base.blocks, first_adapted, dtype, is_joined=is_known(base.decoder))
    network = PolicyNetwork(base, bank, codec, model.prefix_cache_mb)
    if model.trunk == "int8":  # not before the instructions are read, which 8 bits would spoil
        quantise(base.decoder, first_adapted)
    return Policy(network, ValueHead(network.width, seed=seed))


def _no_numbers(owners: Sequence[int], texts: Sequence[str], answers: np.ndarray) -> UserError:
    """What is said of the first of the logits (M, A) that are not finite."""
    row = int(np.isfinite(answers).all(axis=1).argmin())
    who = f"adapter {owners[row]}" if owners[row] >= 0 else "the model without an adapter"
    given = answers[row].tolist()
    return UserError(f"the logits of {who} after text {texts[row]!r} are {given}: must be finite; {WHY_NOT_FINITE}")


def _distinct(texts: Sequence[str], groups: int) -> tuple[list[str], list[int], Tensor]:
    """The distinct texts of each group, how many these are, and where each of B texts is among them, (B,).

    A world repeats itself: what an agent met many times is computed once, and the gradient is the same.
    """
    rows = len(texts) // groups
    numbers: list[dict[str, int]] = [{} for _ in range(groups)]
    index = [numbers[i // rows].setdefault(text, len(numbers[i // rows])) for i, text in enumerate(texts)]
    counts = [len(own) for own in numbers]
    before = np.cumsum([0, *counts[:-1]])  # texts of the groups before
    return [text for own in numbers for text in own], counts, torch.from_numpy(np.repeat(before, rows) + index)


def chosen(logits: Tensor, actions: Tensor, legal: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `actions` (B,) among the legal ones and entropies (B,); logits, legal: (B, A)."""
    log_probs = logits.masked_fill(~legal, -torch.inf).log_softmax(dim=1)
    entropy = -(log_probs.exp() * log_probs.masked_fill(~legal, 0.0)).sum(dim=1)
    return log_probs.gather(1, actions[:, None])[:, 0], entropy


def log_softmax(logits: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """Log-probabilities (M, A) of the legal actions; -inf for the others."""
    masked = torch.from_numpy(logits).masked_fill(~torch.from_numpy(legal), -torch.inf)
    return masked.log_softmax(dim=1).numpy()
