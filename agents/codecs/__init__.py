"""From observations to words: one codec for each kind of world. Never imports torch.

`PlainCodec` is what to subclass for a world of your own (docs/worlds.md).
"""

from agents.codecs.codec import PlainCodec, TextCodec

__all__ = ["PlainCodec", "TextCodec"]
