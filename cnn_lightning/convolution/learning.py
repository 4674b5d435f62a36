"""A kernel found by gradient descent."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD

from cnn_lightning.convolution.layers import LearntConvolution
from cnn_lightning.errors import UserError


def learn_kernel(
    layer: LearntConvolution,
    inputs: Tensor,
    outputs: Tensor,
    *,
    num_steps: int = 300,
) -> Tensor:
    """Train a layer, in place, to turn `inputs` into `outputs`; it is shown nothing else.

    Gradient descent with momentum 0.9 on the mean squared error over all pixels, always the same.
    Both sides are divided by the root mean square of the pixels under the kernel, which leaves the
    kernel sought as it is. A kernel of K numbers then bears any step below 1.9 / K, so 1 / K is
    taken.

    Args:
        layer: What learns.
        inputs: N×C×H×W float.
        outputs: What a known kernel makes of them, of the size that `layer` gives.
        num_steps: Steps of the descent, at least 1.

    Returns:
        The error before each step and after the last, `num_steps` + 1 float32, in units of the
        squared `inputs`.

    Raises:
        UserError: The inputs are zero under the kernel, or as `layer` raises.
        ValueError: `outputs` has another size.

    Example:
        >>> inputs = torch.tensor([[[[1.0, 0, 0], [0, 2, 0], [0, 0, 1]]]])
        >>> layer = LearntConvolution((1, 1))
        >>> losses = learn_kernel(layer, inputs, 3 * inputs)
        >>> round(layer.kernel.item(), 3)
        3.0
    """
    if layer(inputs).shape != outputs.shape:
        raise ValueError(
            f"outputs are {tuple(outputs.shape)}, the layer makes {tuple(layer(inputs).shape)}"
        )
    windows = F.unfold(
        layer.pad(inputs.flatten(0, 1)[:, None]), layer.window, layer.dilation, 0, layer.stride
    )
    scale = windows.square().mean().sqrt()
    if scale == 0:
        raise UserError("an image of zeros teaches no kernel", "use another image")
    inputs, outputs = inputs / scale, outputs / scale
    optimizer = SGD(layer.parameters(), lr=1 / layer.kernel.numel(), momentum=0.9)
    losses = []
    for _ in range(num_steps):
        loss = F.mse_loss(layer(inputs), outputs)
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # as torch has it
        optimizer.step()
    losses.append(F.mse_loss(layer(inputs), outputs).detach())
    return torch.stack(losses) * scale.square()
