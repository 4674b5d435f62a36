import torch

from cnn_lightning.callbacks.gathering import GatheredOutputs
from cnn_lightning.classifiers.interfaces import StepOutput


def output_of(indices: torch.Tensor) -> StepOutput:
    return StepOutput(indices[:, None].expand(-1, 3).float(), 10 * indices, indices)


def test_all_batches_come_back_in_the_order_of_the_images_once() -> None:
    outputs = GatheredOutputs(StepOutput)
    for indices in ([4, 2], [0], [3, 1]):
        outputs.add(output_of(torch.tensor(indices)))
    found = outputs.gather()
    assert found is not None
    expected = output_of(torch.arange(5))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert outputs.gather() is None
