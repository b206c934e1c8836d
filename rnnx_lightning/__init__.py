"""rnnx: train recurrent networks and measure how well their decisions can be explained."""

__version__ = "0.1.0"
