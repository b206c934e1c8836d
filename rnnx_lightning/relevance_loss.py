"""Training on relevance: the score of an explanation becomes part of the loss."""

import math
import warnings

from torch import Tensor, nn

from rnnx_lightning.explain import Attributor, NothingToExplainWarning
from rnnx_lightning.metrics.functional import majority_cosine_similarity


class RelevanceLoss:
    """weight * (1 - cosine similarity of the majority mask and the relevance per sample).

    It tells the network where to look. So do not compare a network that was trained with it with one that was
    trained on labels only; its results belong in a table of their own.

    Args:
        method: the method whose relevance is trained, with `create_graph=True`.
        weight: factor of this loss in the sum with the classification loss, positive.

    Raises:
        ValueError: the weight is out of range, or the method's relevance cannot be trained.
    """

    def __init__(self, method: Attributor, weight: float = 1.0) -> None:
        if not 0 < weight < math.inf:
            raise ValueError(f"relevance_loss: weight={weight} must be positive and finite")
        if not getattr(method, "create_graph", False):
            raise ValueError(
                f"relevance_loss: {type(method).__name__} gives relevance that cannot be trained: "
                "set create_graph to true in its init_args, or choose a method that has it"
            )
        self.method = method
        self.weight = weight

    def __call__(self, network: nn.Module, image: Tensor, label: Tensor, majority: Tensor) -> Tensor:
        """The loss of a batch, a scalar. Relevance is computed in eval mode, without dropout.

        Args:
            network: its modules may be in any mode, and are in the same mode afterwards.
            image: (B, 1, H, W).
            label: (B,) the explained class.
            majority: (B, S) bool.
        """
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            with warnings.catch_warnings():
                # At the start of training, many logits are not positive; such examples give no gradient.
                warnings.simplefilter("ignore", NothingToExplainWarning)
                relevance = self.method(network, image, label)
        finally:
            for module, training in modes:  # a part may be frozen
                module.training = training
        return self.weight * (1 - majority_cosine_similarity(relevance, majority).mean())
