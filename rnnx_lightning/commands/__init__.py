"""The commands that are no Trainer commands: `rnnx explain`, `compare`, `doctor`; and what `predict` writes."""
