"""A student that learns with all its weights, from a teacher's answers: for a small model that knows nothing yet.

Adapters stay as they are. After each rollout the weights learn from all texts that were met so far (DAgger, Ross et al.
2011, arXiv:1011.0686), and the population acts by a copy of them. The loss is that of `losses.distil_loss`, on the
action words after the answer token.

Symbols: T steps, M agents, K distinct texts, A actions.
"""

import copy
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from agents.files import whole_folder
from agents.policy_network import PolicyNetwork
from agents.sums import write_sums
from agents.types import ModelConfig, require
from agents.weights.base_model import load_base_model
from trainers.learning.config import LearnConfig
from trainers.learning.distil import distil_loss
from trainers.rollout import Trajectory

WARM_UP = 10
"""Steps after each rollout in which the step size rises to its full one: AdamW begins anew every time."""


class WholeModel:
    """The weights of a student, and what it has been taught."""

    def __init__(self, network: PolicyNetwork, config: LearnConfig, temperature: float):
        """network: by which the population acts; it stays as it is."""
        base = load_base_model(ModelConfig(name=str(network.base.folder)), by_transformers=True)  # which can save it
        self.causal_lm, self.tokenizer = base.causal_lm.to(network.device).requires_grad_(True), base.tokenizer
        self._device = network.device
        self.config, self.temperature = config, temperature
        is_whole = not network.part_end
        require(is_whole, "distillation.trains", "model", "adapters with a codec whose texts are read in parts")
        ids, answer = network.instruction_ids, network.answer_id
        self._prompt = lambda text: [*ids, *base.tokens(text), answer]
        self._words = network.action_ids
        self.texts: list[str] = []
        self.taught = torch.zeros(0, len(self._words))  # (K, A): sums over visits of what should have been done

    def remember(self, t: Trajectory, targets: np.ndarray) -> None:
        """Add the texts of a rollout of which the teacher says something; targets: (T, M, A), 0 where it does not."""
        is_taught = t.is_alive & (targets.sum(axis=2) > 0)
        number = {text: i for i, text in enumerate(self.texts)}
        read = [t.texts[i] for i in t.text[is_taught]]
        rows = torch.tensor([number.setdefault(text, len(number)) for text in read], dtype=torch.long)
        self.texts = list(number)
        taught = torch.zeros(len(number), self.taught.shape[1])
        taught[: len(self.taught)] = self.taught
        self.taught = taught.index_add_(0, rows, torch.from_numpy(targets[is_taught]).float())

    def learn(self, rng: np.random.Generator) -> dict[str, float]:
        """`epochs` times as many minibatches as there are distinct texts to fill them, each text as often as met."""
        visits = self.taught.sum(dim=1)
        targets, odds = self.taught / visits[:, None], (visits / visits.sum()).double().numpy()
        optimiser = torch.optim.AdamW(self.causal_lm.parameters(), self.config.learning_rate, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / WARM_UP))
        losses = []
        for _ in range(self.config.epochs * -(-len(self.texts) // self.config.minibatch)):
            drawn, count = np.unique(
                rng.choice(len(odds), self.config.minibatch, p=odds / odds.sum()), return_counts=True
            )
            loss = distil_loss(self.logits([self.texts[i] for i in drawn]), targets[drawn], self.temperature)
            mean = (loss * torch.from_numpy(count)).sum() / self.config.minibatch
            optimiser.zero_grad()
            mean.backward()
            torch.nn.utils.clip_grad_norm_(self.causal_lm.parameters(), self.config.max_grad_norm)
            optimiser.step()
            schedule.step()
            losses.append(float(mean.detach()))
            allowed = "finite; learn.learning_rate may be too large"
            require(isfinite(losses[-1]), "the loss of the model that learns", losses[-1], allowed)
        mean_loss = float(np.mean(losses or [0.0]))
        return {"policy_loss": mean_loss, "texts_taught": float(len(self.texts))}

    def logits(self, texts: Sequence[str]) -> Tensor:
        """Logits (B, A), on the CPU, of the action words after B texts.

        Short ones are filled up behind, where nobody looks.
        """
        prompts = [torch.tensor(self._prompt(text)) for text in texts]
        filled = pad_sequence(prompts, batch_first=True).to(self._device)
        hidden = self.causal_lm.base_model(filled, use_cache=False).last_hidden_state
        answer = hidden[torch.arange(len(prompts)), torch.tensor([len(prompt) - 1 for prompt in prompts])]
        logits: Tensor = self.causal_lm.get_output_embeddings()(answer)[:, self._words]
        return logits.cpu()

    def tensors(self) -> dict[str, Tensor]:
        """All that changes but the texts, by name; tied weights once."""
        return {**dict(self.causal_lm.named_parameters()), "taught": self.taught}

    def restore(self, tensors: dict[str, Tensor], texts: Sequence[str]) -> None:
        """Become what was saved; KeyError or RuntimeError where it does not fit."""
        with torch.no_grad():
            for name, parameter in self.causal_lm.named_parameters():
                parameter.copy_(tensors[name])
        self.texts, self.taught = list(texts), tensors["taught"]

    def write(self, folder: Path) -> None:
        """Write the weights in bfloat16 as a model folder, in the place of what is there."""
        with whole_folder(folder) as box:
            copy.deepcopy(self.causal_lm).bfloat16().save_pretrained(box)  # tied weights once
            self.tokenizer.save_pretrained(box)
            write_sums(box)
