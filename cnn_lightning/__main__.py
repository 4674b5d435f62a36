"""`python -m cnn_lightning`, the same as `cnn-lightning`."""

from cnn_lightning.cli import run

if __name__ == "__main__":
    run()
