"""Training on relevance itself: what is else only measured becomes part of the loss."""

import math
import warnings

from torch import Tensor, nn

from rnnx_lightning.explain import Attributor, NothingToExplainWarning
from rnnx_lightning.metrics.functional import majority_cosine_similarity


class RelevanceLoss:
    """weight * (1 - cosine similarity of the majority mask and the relevance per sample).

    It tells the network where to look. A network that was trained with it cannot be compared with one that found
    that out by itself, so its results belong into a table of their own.

    Args:
        method: whose relevance is trained; made with `create_graph=True`.
        weight: of this loss beside the classification loss, positive.

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
        """The loss of a batch, a scalar; relevance is that of the network in eval mode, without dropout.

        Args:
            network: each of its modules in any mode, which it keeps.
            image: (B, 1, H, W).
            label: (B,) the explained class.
            majority: (B, S) bool.
        """
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            with warnings.catch_warnings():
                # Before it is trained, many logits are not positive: such an example gives no gradient.
                warnings.simplefilter("ignore", NothingToExplainWarning)
                relevance = self.method(network, image, label)
        finally:
            for module, training in modes:  # a part may be frozen
                module.training = training
        return self.weight * (1 - majority_cosine_similarity(relevance, majority).mean())
