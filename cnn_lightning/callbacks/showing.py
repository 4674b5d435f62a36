"""One picture to TensorBoard and to a file, drawn and compressed once."""

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.compat.proto.summary_pb2 import Summary

from cnn_lightning.figures import Sheet, to_array, to_png
from cnn_lightning.files import write_bytes
from cnn_lightning.loggers import EventFiles


def show_picture(
    trainer: L.Trainer, tag: str, picture: Figure | Sheet, *, step: int, path: Path | None = None
) -> None:
    """Show a picture in TensorBoard and write it as PNG.

    Args:
        trainer: Whose TensorBoard loggers get it.
        tag: Its name in TensorBoard.
        picture: What to show.
        step: The optimizer step it belongs to, unless the logger has one step for all.
        path: Where the file goes; `None` writes none.
    """
    pixels = to_array(picture)
    png = to_png(pixels)
    if path is not None:
        write_bytes(path, png)
    image = Summary.Image(
        height=pixels.shape[1], width=pixels.shape[2], colorspace=3, encoded_image_string=png
    )
    summary = Summary(value=[Summary.Value(tag=tag, image=image)])
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            at = logger.place(step) if isinstance(logger, EventFiles) else step
            # add_image would compress it a second time, which takes longer than the drawing
            logger.experiment._get_file_writer().add_summary(summary, at)
