"""One self-contained HTML page to look at explanations: numbers in, a file out, no server."""

from rnnx_lightning.view.page import write_page
from rnnx_lightning.view.record import Named, recorded

__all__ = ["Named", "recorded", "write_page"]
