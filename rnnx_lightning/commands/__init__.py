"""The commands that need no Trainer: `rnnx explain`, `view`, `compare` and `doctor`."""
