"""Networks as people have them, written from their papers, to try the explainer on.

Importing the package fills `CATALOGUE`: name -> `Network`.
"""

from . import (  # noqa: F401
    attending,
    attention,
    cells,
    convolutional,
    dynamics,
    forecasters,
    forecasting,
    fused,
    gated,
    gates,
    graphs,
    irregular,
    linear_attention,
    memories,
    readers,
    spectra,
    speech,
    statespace,
    structures,
    text,
    vision,
)
from .network import BATCH, CATALOGUE, Network, called, explained, precision, single, tensors

__all__ = ["BATCH", "CATALOGUE", "Network", "called", "explained", "precision", "single", "tensors"]
