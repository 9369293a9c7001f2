"""GPT-2 and GPT-Neo, which transformers still builds the old way, made to work like the others.

`agents.policy_network` needs three things of a decoder: its blocks under the name `layers`, a hidden state that may
enter at any of them, and attention to which `attend_as` says whom to look at. Llama and its relatives offer them; these
two do not. They add learned positions to whatever enters; GPT-Neo's attention asks no attention function, and its
blocks hand no keywords down; GPT-2's linear modules are Conv1D, which hold their weight transposed.

The modules and their names stay those of transformers, so that adapters open in PEFT. Called without `attend_as`, a
decoder computes what it always did. What is inside of these two is private to transformers and is spoken of in this
file alone; where it is not as it was, `PolicyNetwork` finds other logits, or an error, and refuses the model by name.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from agents.attention import Sight, terrarium_attention


def modernise(causal_lm: Any) -> None:
    """Give a GPT-2 or GPT-Neo, in place, what `agents.policy_network` needs; leave every other model alone."""
    if causal_lm.config.model_type not in ("gpt2", "gpt_neo"):
        return
    decoder = causal_lm.transformer
    decoder.layers = decoder.h
    if causal_lm.config.model_type == "gpt2":
        _add(OpenGPT2, decoder)
        _replace_conv1d(decoder)
        return
    _add(OpenGPTNeo, decoder)
    for block in decoder.h:
        _add(OpenGPTNeoAttention, block.attn.attention)
    causal_lm.set_attn_implementation = lambda _: None  # it has but one, and would warn that it cannot be changed
    if "local" in causal_lm.config.attention_layers:
        # The name that newer architectures have for it: a longer prompt is refused by `PolicyNetwork`.
        causal_lm.config.sliding_window = causal_lm.config.window_size


def _add(part: type, module: nn.Module) -> None:
    """Put the methods of `part` before those of a module's own class."""
    module.__class__ = _with(part, type(module))  # type: ignore[arg-type]


@cache
def _with(part: type, kind: type) -> type:
    return type(f"{part.__name__}Of{kind.__name__}", (part, kind), {})


class _Open:
    """What a decoder with learned positions needs to be entered at any layer."""

    def forward(
        self: Any,
        input_ids: Tensor | None = None,
        *,
        attend_as: Sight | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As transformers has it, but that with `attend_as`, `inputs_embeds` (B, S, D) enter `layers` as they are."""
        if attend_as is None:
            given = {"inputs_embeds": inputs_embeds, "position_ids": position_ids}
            return super().forward(input_ids, **given, **kwargs)  # type: ignore[misc]
        if inputs_embeds is None:
            assert input_ids is not None
            positions = torch.arange(input_ids.shape[1])[None] if position_ids is None else position_ids
            inputs_embeds = self.wte(input_ids) + self.wpe(positions)
        hidden = inputs_embeds
        for layer in self.layers:
            hidden = self.through(layer, hidden, attend_as)
        return BaseModelOutput(last_hidden_state=self.ln_f(hidden))


class OpenGPT2(_Open):
    """The same for GPT-2's."""

    def through(self, layer: nn.Module, hidden: Tensor, attend_as: Sight) -> Tensor:
        """What a block makes of hidden states (B, S, D)."""
        return layer(hidden, attend_as=attend_as)


class OpenGPTNeo(_Open):
    """The same for GPT-Neo's."""

    def through(self, layer: nn.Module, hidden: Tensor, attend_as: Sight) -> Tensor:
        """What a block makes of hidden states (B, S, D); of all keywords, only `layer_past` comes through a block."""
        return layer(hidden, layer_past=attend_as)[0]


class OpenGPTNeoAttention:
    """GPT-Neo's attention, which also looks where `agents.attention` tells it. It does not scale its products."""

    def forward(
        self: Any, hidden_states: Tensor, attention_mask: Any = None, layer_past: Any = None, *rest: Any, **kwargs: Any
    ) -> Any:
        """As transformers has it, but that `layer_past` may say whom hidden states (B, S, D) attend to."""
        if not isinstance(layer_past, Sight):
            return super().forward(hidden_states, attention_mask, layer_past, *rest, **kwargs)  # type: ignore[misc]
        q, k, v = (
            self._split_heads(project(hidden_states), self.num_heads, self.head_dim)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        self.layer_idx = self.layer_id  # as newer architectures call it
        seen, _ = terrarium_attention(self, q, k, v, None, scaling=1.0, attend_as=layer_past)  # (B, S, H, d)
        return self.out_proj(seen.flatten(2)), None


def _replace_conv1d(decoder: nn.Module) -> None:
    """Put a linear module of the same map in the place of each Conv1D, so that it can carry adapters."""
    from transformers.pytorch_utils import Conv1D

    for path, conv in list(decoder.named_modules()):
        if isinstance(conv, Conv1D):
            parent, _, child = path.rpartition(".")
            linear = nn.Linear(conv.nx, conv.nf, device="meta")
            linear.weight = nn.Parameter(conv.weight.T.contiguous(), requires_grad=False)
            linear.bias = conv.bias
            setattr(decoder.get_submodule(parent), child, linear)
