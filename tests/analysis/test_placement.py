"""Cells of a map stand as far apart as what they see, about the middle of the image."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_lightning.analysis.attribution import grad_cam
from cnn_lightning.analysis.placement import Grid, locate_cells, place_maps
from cnn_lightning.networks import GoogLeNet, LeNet5, ResidualNetwork
from cnn_lightning.randomness import generator

CHAINS = {
    "stride 2, padding 1": [nn.Conv2d(1, 1, 3, stride=2, padding=1)],
    "stride 2, no padding": [nn.Conv2d(1, 1, 3, stride=2)],
    "pooling": [nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2), nn.AvgPool2d(3, 2)],
    "dilation": [nn.Conv2d(1, 1, 3, dilation=2), nn.Conv2d(1, 1, 5, stride=2, padding=2)],
    "same and valid": [
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.Conv2d(1, 1, 3, stride=2, padding="valid"),
    ],
    "sides differ": [nn.Conv2d(1, 1, (3, 1), stride=(2, 1), padding=(1, 0))],
    "nothing slides": [nn.Identity()],
}


def middle_seen(network: nn.Module, layer: nn.Module, row: int, column: int) -> tuple[float, float]:
    """The middle of the pixels whose change a cell would notice, in an image of 32×32."""
    seen = {}
    handle = layer.register_forward_hook(lambda *call: seen.update(output=call[2]))
    image = torch.rand(1, 1, 32, 32, generator=generator("placement")).requires_grad_()
    network(image)
    handle.remove()
    (gradient,) = torch.autograd.grad(seen["output"][0, :, row, column].sum(), image)
    rows, columns = gradient[0, 0].nonzero().double().unbind(1)
    return float(rows.min() + rows.max()) / 2, float(columns.min() + columns.max()) / 2


@pytest.mark.parametrize("name", CHAINS)
def test_places_are_as_far_apart_as_what_cells_see(name: str) -> None:
    network = nn.Sequential(*CHAINS[name])
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.5)
    # as a maximum sees one pixel of its window, a mean with the same window takes its place here
    even = nn.Sequential(
        *(nn.AvgPool2d(m.kernel_size) if isinstance(m, nn.MaxPool2d) else m for m in network)
    )
    rows, columns = locate_cells(network, network[-1], torch.zeros(1, 1, 32, 32))
    seen = [middle_seen(even, even[-1], row, column) for row, column in ((3, 3), (5, 4))]
    assert (2 * rows.step, columns.step) == tuple(b - a for a, b in zip(*seen, strict=True))
    output = network(torch.zeros(1, 1, 32, 32))
    for grid, cells in zip((rows, columns), output.shape[2:], strict=True):
        assert grid.first + (cells - 1) / 2 * grid.step == 15.5


def test_places_in_a_residual_network_are_those_of_its_strides() -> None:
    network = ResidualNetwork(3)
    for name, step in (("layer1", 1), ("layer2", 2), ("layer3", 4), ("layer4", 8)):
        layer = network.backbone.get_submodule(name)
        grid = Grid((step - 1) / 2, step)
        assert locate_cells(network, layer, torch.zeros(1, 3, 32, 32)) == (grid, grid)


@pytest.mark.parametrize(("layer", "first", "step"), [("conv1", 2.0, 1.0), ("conv2", 6.5, 2.0)])
def test_places_without_padding_are_the_middles_of_what_cells_see(
    layer: str, first: float, step: float
) -> None:
    network = LeNet5(3, 1)
    for side, missing in ((28, 2), (32, 0)):  # smaller images are padded by the network
        grids = locate_cells(
            network, network.backbone.get_submodule(layer), torch.zeros(1, 1, side, side)
        )
        assert grids == (Grid(first - missing, step),) * 2


def test_network_is_left_as_it_was() -> None:
    network = GoogLeNet(3, stem="small").train()
    locate_cells(network, network.backbone.inception5b, torch.zeros(2, 3, 32, 32))
    assert all(part.training and not part._forward_hooks for part in network.modules())


def test_equal_shares_are_enlarged_as_torch_does() -> None:
    maps = torch.randn(2, 4, 8, generator=generator("maps"))
    grids = Grid(1.5, 4.0), Grid(0.5, 2.0)
    expected = F.interpolate(maps[:, None], (16, 16), mode="bilinear")[:, 0]
    torch.testing.assert_close(place_maps(maps, grids, (16, 16)), expected)


def test_a_cell_has_its_value_at_its_place_and_goes_on_beyond_the_last() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 4.0]]])
    large = place_maps(maps, (Grid(1.0, 4.0), Grid(2.0, 4.0)), (8, 8))[0]
    torch.testing.assert_close(large[1, [0, 2, 4, 6, 7]], torch.tensor([0, 0, 0.5, 1, 1]))
    torch.testing.assert_close(large[[0, 1, 3, 5, 7], 6], torch.tensor([1, 1, 2.5, 4, 4]))


def test_a_spot_is_found_where_it_is_behind_convolutions_without_padding() -> None:
    class Spot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(1, 1, 5, bias=False),
                nn.Conv2d(1, 1, 2, stride=2, bias=False),
                nn.Conv2d(1, 1, 5, bias=False),
            )
            for layer, kernel in zip(
                self.layers, ([1, 2, 3, 2, 1], [1, 1], [1, 2, 3, 2, 1]), strict=True
            ):
                weights = torch.tensor(kernel, dtype=torch.float32)
                layer.weight.data[:] = weights[:, None] * weights[None, :]

        def forward(self, images: Tensor) -> Tensor:
            evidence = self.layers(images).sum((1, 2, 3))
            return torch.stack([evidence, -evidence], 1)

    network, images = Spot(), torch.zeros(4, 1, 32, 32)
    spots = [(8, 8), (16, 8), (8, 22), (22, 16)]
    for image, (row, column) in zip(images, spots, strict=True):
        image[0, row, column] = 1
    maps = grad_cam(network, network.layers, images, torch.zeros(4, dtype=torch.int64))
    small = network.layers(images).detach()
    plain = F.interpolate(small, (32, 32), mode="bilinear")[:, 0]
    for place, found, spread in zip(spots, maps, plain, strict=True):
        assert distance(place, divmod(int(found.argmax()), 32)) <= 1  # half a step
        # equal shares put it further out
        assert distance(place, divmod(int(spread.argmax()), 32)) > 1


def distance(one: tuple[int, int], other: tuple[int, int]) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
