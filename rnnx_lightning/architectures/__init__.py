"""Plain torch networks, without a word of explanation in them."""

from rnnx_lightning.architectures.base import RecurrentNetwork
from rnnx_lightning.architectures.deep import ConvDeep, Deep, DeepV2, Shallow
from rnnx_lightning.architectures.evidence import ConvEvidence, Evidence
from rnnx_lightning.architectures.gated import GRU, LSTM, RGRU, RLSTM, ConvRLSTM

__all__ = [
    "GRU",
    "LSTM",
    "RGRU",
    "RLSTM",
    "ConvDeep",
    "ConvEvidence",
    "ConvRLSTM",
    "Deep",
    "DeepV2",
    "Evidence",
    "RecurrentNetwork",
    "Shallow",
]
