"""rnnx: train recurrent networks and measure how well their decisions can be explained."""

from typing import Any

__version__ = "0.1.0"

__all__ = ["LRP", "Captum", "DeepTaylor", "GuidedBackprop", "Sensitivity", "__version__"]


def __getattr__(name: str) -> Any:
    """The most used methods can be imported from here, too; only then is torch imported."""
    if name in __all__:
        from rnnx_lightning import explain

        return getattr(explain, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
