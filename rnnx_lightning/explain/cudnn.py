"""Fused recurrent layers: torch's functions for them, and how cuDNN differentiates them."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

FUSED = {torch.lstm: "lstm", torch.gru: "gru", torch.rnn_tanh: "rnn_tanh", torch.rnn_relu: "rnn_relu"}


class DifferentiableLayers(TorchFunctionMode):
    """A context in which cuDNN differentiates `nn.LSTM`, `nn.GRU` and `nn.RNN` in eval mode, too.

    It only keeps what that needs in training mode. The layer computes the same there, once its dropout is 0.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a recurrent layer in training mode; other operations unchanged."""
        return func(*(in_training(args) if func in FUSED else args), **(kwargs or {}))


def in_training(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of `torch.lstm` and similar, for training without dropout if they were not for training."""
    packed = isinstance(arguments[3], tuple | list)  # the weights come one place later
    place = 6 if packed else 5
    dropout, training = arguments[place : place + 2]
    return (*arguments[:place], dropout if training else 0.0, True, *arguments[place + 2 :])
