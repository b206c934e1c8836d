"""The commands that are no Trainer commands: `rnnx explain` and `rnnx compare`."""
