"""Plain torch networks, without a word of explanation in them."""

from rnnx_lightning.architectures.base import RecurrentNetwork
from rnnx_lightning.architectures.deep import ConvDeep

__all__ = ["ConvDeep", "RecurrentNetwork"]
