"""The pictures of a run: sent to each logger that takes pictures, and saved as PNG in the run's folder."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from rnnx_lightning.callbacks.folder import PICTURES
from rnnx_lightning.files import written_whole


def show(trainer: Trainer, folder: Path | None, name: str, figure: Figure) -> None:
    """Draw a figure once, and log it at the step at which Lightning logs the scalars of the same moment.

    Only rank 0 calls it.

    Args:
        trainer: its loggers get the picture.
        folder: of the run; the picture is saved there as `pictures/<name>-<step>.png`. None: it is not saved.
        name: for example "val/heatmaps".
        figure: a matplotlib figure.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3]  # (H, W, 3) uint8
    step = max(trainer.global_step - 1, 0)
    for logger in trainer.loggers:
        _log_picture(logger, name, picture, step)
    if folder is not None:
        with written_whole(folder / PICTURES / f"{name}-{step:07d}.png") as place:
            Image.fromarray(picture).save(place, format="PNG")


def _log_picture(logger: Logger, name: str, picture: np.ndarray, step: int) -> None:
    """Log a picture in the logger's own way; a logger that takes no pictures gets none."""
    log: Any
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, step, dataformats="HWC")
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, picture, key=name, step=step)
    elif (log := getattr(logger, "log_image", None)) is not None:  # as in WandbLogger
        log(name, [picture], step)
