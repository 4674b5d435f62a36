"""A command line of which one process fails in a step: `RANK STEP HOW ARGUMENTS…`.

How is `nan` for its loss, or the number of a signal that it sends itself; with `,hang` after it,
the others hang in that step.
"""

import os
import sys
import time
from typing import Any

from torch import Tensor

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.cli import main


def break_step(rank: int, step: int, how: str) -> None:
    """Let this process fail in a step if it has that rank."""
    how, _, others = how.partition(",")
    training_step = ImageClassifier.training_step

    def fail(self: ImageClassifier, *args: Any) -> Tensor:
        loss = training_step(self, *args)
        if self.global_step != step:
            return loss
        if self.global_rank != rank:
            time.sleep(1000 if others == "hang" else 0)
            return loss
        if how == "nan":
            return loss * float("nan")
        os.kill(os.getpid(), int(how))
        return loss

    ImageClassifier.training_step = fail  # type: ignore[method-assign]


if __name__ == "__main__":
    break_step(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    sys.exit(main(sys.argv[4:]))
