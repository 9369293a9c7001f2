"""A tokenizer through the package `tokenizers` alone, where that gives the tokens that transformers would give.

It does for a folder whose tokenizer.json is all there is to it: of the class that transformers has for any such file,
without settings that transformers would work into it. Others are opened by `agents.weights.by_transformers`.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Of transformers, both for a tokenizer.json as it stands."""
KINDS = ("llama", "mistral")
"""Values of `model_type` for which that class holds: for others transformers may have one of its own, as for Qwen2."""
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
SAYS_NOTHING = ("backend", "is_local", "local_files_only", "model_max_length", "tokenizer_class", "chat_template")
"""Settings that change no token, whatever they are; the class is looked at apart."""
OTHER_FILES = (
    *("added_tokens.json", "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt"),
    *("tokenizer.model", "tiktoken.model", "tekken.json"),
)
"""What transformers may read besides or instead."""
MOST_TOKENS = 100_000
"""transformers looks at larger vocabularies for a mistake in Mistral's."""


class PlainTokenizer:
    """A tokenizer.json and its special tokens, with the methods of transformers' tokenizers that are used here."""

    def __init__(self, tokenizer: Tokenizer, special: dict[str, str]):
        self._tokenizer, self._special = tokenizer, special

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special ones as they are written."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text, if there is one."""
        return self._id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text, if there is one."""
        return self._id("eos_token")

    @property
    def unk_token_id(self) -> int | None:
        """The token of what is not known, if there is one."""
        return self._id("unk_token")

    def _id(self, name: str) -> int | None:
        token = self._special.get(name)
        found: int | None = None if token is None else self._tokenizer.token_to_id(token)
        return found


def plain_tokenizer(folder: Path, kind: str) -> PlainTokenizer | None:
    """The tokenizer of a model folder; None where transformers might give other tokens.

    kind: the model's `model_type`. Raises what `tokenizers` raises for a tokenizer.json that it cannot read.
    """
    settings = _settings(folder)
    if settings is None or kind not in KINDS:
        return None
    special = {name: settings[name] for name in SPECIAL if settings.get(name) is not None}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if tokenizer.truncation is not None or tokenizer.padding is not None or tokenizer.get_vocab_size() > MOST_TOKENS:
        return None
    own = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    return PlainTokenizer(tokenizer, special) if set(special.values()) <= own else None


def _settings(folder: Path) -> dict[str, Any] | None:
    """tokenizer_config.json; None where it, or another file, says more than is known here."""
    if any((folder / name).exists() for name in OTHER_FILES):
        return None
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(settings, dict) or settings.get("tokenizer_class") not in CLASSES:
        return None
    if settings.keys() - {*SPECIAL, *SAYS_NOTHING, "clean_up_tokenization_spaces"}:
        return None
    is_known = all(settings.get(name) is None or isinstance(settings[name], str) for name in SPECIAL)
    return settings if is_known and not settings.get("clean_up_tokenization_spaces") else None
