"""PEFT with the adapters of a policy, used in several ways, for `benchmarks.network` to compare with."""

from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, DynamicCache

from agents.policy import Policy
from agents.policy_network import PolicyNetwork


class Peft:
    """The adapters of a policy, opened by PEFT on the base as plain transformers loads it.

    It is on the policy's device. The output head is applied to the last token only. dtype: of base and adapters.
    """

    def __init__(self, policy: Policy, folder: Path, dtype: torch.dtype):
        self.network, self.names = policy.network, [f"agent_{i}" for i in range(len(policy.network.bank))]
        self.device = policy.network.device
        base = AutoModelForCausalLM.from_pretrained(self.network.base.folder, dtype=dtype, trust_remote_code=False)
        for i, name in enumerate(self.names):
            self.network.save_adapter(i, folder / name)
        self.model = PeftModel.from_pretrained(base, folder / self.names[0], adapter_name=self.names[0])
        for name in self.names[1:]:
            self.model.load_adapter(folder / name, adapter_name=name)
        self.model.to(self.device, dtype).eval()
        self.decoder = base.base_model  # with PEFT's layers in it by now
        self.head = base.get_output_embeddings().weight[self.network.action_ids]
        with torch.no_grad():
            ids = torch.tensor([self.network.instruction_ids], device=self.device)
            self.prefix = base.base_model(ids, use_cache=True).past_key_values

    @torch.no_grad()
    def loop(self, texts: list[str]) -> np.ndarray:
        """One agent after the other, as PEFT's documentation has it."""
        rows = []
        for name, text in zip(self.names, texts, strict=True):
            self.model.set_adapter(name)
            ids = torch.tensor([prompt(self.network, text)], device=self.device)
            out = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=1)
            rows.append(out.logits[0, -1, self.network.action_ids].float())
        return torch.stack(rows).cpu().numpy()

    @torch.no_grad()
    def mixed(self, texts: list[str]) -> np.ndarray:
        """All agents in one batch, each row with its own adapter; padded in front."""
        ids, mask = self._padded([prompt(self.network, text) for text in texts])
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            adapter_names=self.names,
            logits_to_keep=1,
        )
        return out.logits[:, -1, self.network.action_ids].float().cpu().numpy()

    @torch.no_grad()
    def tuned(self, texts: list[str]) -> np.ndarray:
        """The mixed batch by hand: cached keys and values of the instructions, and the head's rows of action words."""
        tokens = [prompt(self.network, text)[len(self.network.instruction_ids) :] for text in texts]
        ids, mask = self._padded(tokens)
        known = len(self.network.instruction_ids)
        cache = DynamicCache(
            [
                (layer.keys.expand(len(texts), -1, -1, -1), layer.values.expand(len(texts), -1, -1, -1))
                for layer in self.prefix.layers
            ]
        )
        hooks = self.model._enable_peft_forward_hooks(adapter_names=self.names, alora_offsets=[1] * len(texts))
        with hooks:
            hidden = self.decoder(
                input_ids=ids,
                attention_mask=torch.cat([mask.new_ones(len(texts), known), mask], dim=1),
                position_ids=known + (mask.cumsum(1) - 1).clamp(min=0),
                past_key_values=cache,
            )
        return (hidden.last_hidden_state[:, -1] @ self.head.T).float().cpu().numpy()

    def learn(self, texts: list[str]) -> None:
        """One step of one adapter on a minibatch of texts: forward, backward, AdamW."""
        self.model.set_adapter(self.names[0])
        parameters = [p for name, p in self.model.named_parameters() if f".{self.names[0]}." in name]
        optimiser = torch.optim.AdamW(parameters, 1e-4)
        ids, mask = self._padded([prompt(self.network, text) for text in texts])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1)
        out.logits[:, -1, self.network.action_ids].float().log_softmax(-1)[:, 0].mean().backward()
        optimiser.step()

    def _padded(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = padded(rows, self.network.answer_id)
        return ids.to(self.device), mask.to(self.device)


def prompt(network: PolicyNetwork, text: str) -> list[int]:
    """All tokens of a prompt: instructions, text and answer token."""
    return [*network.instruction_ids, *network.base.tokens(text), network.answer_id]


def padded(rows: list[list[int]], filler: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of tokens (B, S), padded in front, and a mask (B, S) that is 0 where there is padding."""
    longest = max(map(len, rows))
    ids = torch.tensor([[filler] * (longest - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
