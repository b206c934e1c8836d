"""Where things are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUICK = str(ROOT / "configs" / "quick.yaml")
QUICK_FIT = ["fit", "--config", QUICK, "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1"]
