"""An interactive, self-contained HTML page of explanations."""

from rnnx_lightning.view.page import write_page
from rnnx_lightning.view.record import Named, recorded

__all__ = ["Named", "recorded", "write_page"]
