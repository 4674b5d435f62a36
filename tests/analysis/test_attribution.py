"""Grad-CAM and occlusion against hand-written ones, known maps, and shapes whose place is known."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_lightning import networks
from cnn_lightning.analysis import attribution
from cnn_lightning.analysis.attribution import (
    MIN_CELLS,
    Mirrors,
    find_cam_layer,
    grad_cam,
    occlusion,
)
from cnn_lightning.cli import main
from cnn_lightning.commands.loading import load_classifier, load_data
from cnn_lightning.data import ShapesDataModule
from cnn_lightning.data.shapes import draw_shapes
from cnn_lightning.figures.overlays import find_peak
from cnn_lightning.networks import (
    VGG,
    AirbenchNetwork,
    GoogLeNet,
    InceptionV3,
    LeNet5,
    Network,
    ResidualNetwork,
    SequentialNetwork,
    TorchvisionNetwork,
)
from cnn_lightning.randomness import generator

# a row per class: how to build it small, an image size it takes, one for which a layer for Grad-CAM
# is looked for, and that layer
ROWS: dict[str, tuple[Callable[[], Network], int, int, str]] = {
    "LeNet5": (lambda: LeNet5(7), 28, 28, "backbone.act2"),
    "VGG": (lambda: VGG(7), 32, 32, "backbone.features.22"),  # the ReLU before the third pooling
    "AirbenchNetwork": (lambda: AirbenchNetwork(7), 32, 32, "backbone.blocks.2.conv1"),
    "ResidualNetwork": (lambda: ResidualNetwork(7), 32, 32, "backbone.layer3"),
    "GoogLeNet": (lambda: GoogLeNet(7, stem="small"), 32, 32, "backbone.inception5b"),
    "InceptionV3": (lambda: InceptionV3(7), 75, 299, "backbone.Mixed_7c"),
    "SequentialNetwork": (
        lambda: SequentialNetwork(
            nn.Sequential(
                *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
                *(nn.Flatten(), nn.Linear(4, 7)),
            )
        ),
        16,
        16,
        "backbone.1",
    ),
    "TorchvisionNetwork": (lambda: TorchvisionNetwork("squeezenet1_1", 7), 32, 224, "head.2"),
}
RECIPE = Path(__file__).parents[2] / "configs/shapes_resnet18.yaml"
EVERY = pytest.mark.parametrize("name", ROWS)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator("test attribution"))


def small_network() -> nn.Sequential:
    """3×12×12 to 5 classes, with drawn weights and batch statistics."""
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(8 * 6 * 6, 5),
    )
    draws = generator("small network")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.1 if parameter.ndim == 2 else 0.4, generator=draws)
        network[1].running_mean.normal_(0, 0.3, generator=draws)
    return network


def grad_cam_by_hand(network: nn.Sequential, place: int, image: Tensor, target: int) -> Tensor:
    """Equations 1 and 2 for one image, channel by channel, at the layer's own size."""
    output = network[: place + 1](image[None]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network[place + 1 :](output)[0, target], output)
    total = torch.zeros(output.shape[2:])
    for channel in range(output.shape[1]):
        weight = gradient[0, channel].sum() / gradient[0, channel].numel()
        total += weight * output[0, channel].detach()
    return total.clamp(min=0)


def occlusion_by_hand(
    network: nn.Module, image: Tensor, target: int, window: int, stride: int, baseline: float
) -> Tensor:
    """One square at a time, from the upper left corner until the far border is reached."""
    height, width = image.shape[1:]

    def log_odds(seen: Tensor) -> Tensor:
        probability = network(seen[None]).double().softmax(1)[0, target]
        return (probability / (1 - probability)).log().float()

    total, times = torch.zeros(height, width), torch.zeros(height, width)
    top = 0
    while True:
        left = 0
        while True:
            covered = image.clone()
            covered[:, top : top + window, left : left + window] = baseline
            total[top : top + window, left : left + window] += log_odds(image) - log_odds(covered)
            times[top : top + window, left : left + window] += 1
            if left + window >= width:
                break
            left += stride
        if top + window >= height:
            break
        top += stride
    return total / times


@pytest.mark.parametrize("place", range(6))
def test_grad_cam_equals_one_by_hand(place: int) -> None:
    network, images, targets = (
        small_network().eval(),
        draw(4, 3, 12, 12),
        torch.tensor([0, 3, 1, 3]),
    )
    maps = grad_cam(network, network[place], images, targets, num_shifts=1)
    assert maps.shape == (4, 12, 12)
    for image, target, found in zip(images, targets.tolist(), maps, strict=True):
        expected = grad_cam_by_hand(network, place, image, target)[None, None]
        expected = F.interpolate(expected, (12, 12), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(found, expected)
    assert maps.max() > 0  # and not all 0 by accident


def test_grad_cam_is_the_mean_over_small_moves_of_the_image() -> None:
    network, images = small_network().eval(), draw(2, 3, 12, 12)
    targets = torch.tensor([1, 3])
    found = grad_cam(network, network[4], images, targets, num_shifts=3)  # a cell is 2 pixels
    total = torch.zeros(2, 12, 12)
    for rows in (-1, 0, 1):
        for columns in (-1, 0, 1):
            moved = shift(images, rows, columns)
            maps = grad_cam(network, network[4], moved, targets, num_shifts=1)
            total += shift(maps[:, None], -rows, -columns)[:, 0]
    torch.testing.assert_close(found, total / 9)
    assert not torch.allclose(found, grad_cam(network, network[4], images, targets, num_shifts=1))


def shift(images: Tensor, rows: int, columns: int) -> Tensor:
    """Each pixel from where it was, the nearest one where nothing was."""
    height, width = images.shape[2:]
    down = (torch.arange(height) - rows).clamp(0, height - 1)
    right = (torch.arange(width) - columns).clamp(0, width - 1)
    return images[:, :, down][:, :, :, right]


@pytest.mark.parametrize(
    ("mirrors", "axes"), [("horizontal", [[], [2]]), ("both", [[], [2], [1], [1, 2]])]
)
def test_grad_cam_is_the_mean_over_mirror_images(mirrors: Mirrors, axes: list[list[int]]) -> None:
    network, images, targets = small_network().eval(), draw(2, 3, 12, 12), torch.tensor([1, 3])
    found = grad_cam(network, network[4], images, targets, num_shifts=1, mirrors=mirrors)
    total = torch.zeros(2, 12, 12)
    for turned in axes:
        image = images.flip([axis + 1 for axis in turned])
        total += grad_cam(network, network[4], image, targets, num_shifts=1).flip(turned)
    torch.testing.assert_close(found, total / len(axes))
    assert not torch.allclose(found, grad_cam(network, network[4], images, targets, num_shifts=1))


def test_layers_as_fine_as_the_image_need_no_moves() -> None:
    network, images, targets = small_network().eval(), draw(2, 3, 12, 12), torch.tensor([1, 3])
    maps = [grad_cam(network, network[2], images, targets, num_shifts=n) for n in (1, 3)]
    assert torch.equal(*maps)


@pytest.mark.parametrize("num_shifts", [0, 2, -1])
def test_moves_to_one_side_alone_are_refused(num_shifts: int) -> None:
    network = small_network()
    with pytest.raises(ValueError, match="must be odd"):
        grad_cam(network, network[4], draw(1, 3, 12, 12), torch.tensor([0]), num_shifts=num_shifts)


@pytest.mark.parametrize(
    ("window", "stride", "baseline"), [(4, 2, 0.0), (5, 3, 0.7), (1, 1, 0.0), (12, 12, 0.0)]
)
@torch.no_grad()
def test_occlusion_equals_one_by_hand(window: int, stride: int, baseline: float) -> None:
    network, images, targets = small_network().eval(), draw(3, 3, 12, 12), torch.tensor([4, 0, 2])
    maps = occlusion(network, images, targets, window=window, stride=stride, baseline=baseline)
    assert maps.shape == (3, 12, 12)
    for image, target, found in zip(images, targets.tolist(), maps, strict=True):
        expected = occlusion_by_hand(network, image, target, window, stride, baseline)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert maps.abs().max() > 0.01


@torch.no_grad()
def test_occlusion_of_large_images_takes_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, targets = small_network().eval(), draw(3, 3, 12, 12), torch.tensor([4, 0, 2])
    expected = occlusion(network, images, targets, window=4, stride=2)
    batches: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    for most in (1, 2, 7):
        # a few values short of another image
        monkeypatch.setattr(attribution, "_MAX_VALUES", (most + 1) * 3 * 12 * 12 - 1)
        batches.clear()
        found = occlusion(network, images, targets, window=4, stride=2)
        assert max(batches) <= most
        torch.testing.assert_close(found, expected)
    handle.remove()


@pytest.mark.parametrize(("size", "most"), [(32, 256), (224, 6)])
def test_a_forward_pass_of_occlusion_has_as_much_whatever_the_size(size: int, most: int) -> None:
    network, batches = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), []
    network.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    images, targets = torch.zeros(8, 3, size, size), torch.zeros(8, dtype=torch.int64)
    occlusion(network, images, targets, window=size // 4, stride=size // 8)
    assert max(batches) == most


class SpotDetector(nn.Module):
    """Two classes: the mean brightness above 0.5, and its opposite."""

    def __init__(self, blur: int = 1) -> None:
        super().__init__()
        self.blur = nn.Conv2d(3, 1, blur, padding=blur // 2, padding_mode="replicate")
        self.relu = nn.ReLU()
        nn.init.constant_(self.blur.weight, 1 / (3 * blur * blur))
        nn.init.constant_(self.blur.bias, -0.5)

    def forward(self, images: Tensor) -> Tensor:
        evidence = self.relu(self.blur(images)).sum((1, 2, 3))
        return torch.stack([evidence, -evidence], 1)


@torch.no_grad()
def test_each_image_is_covered_by_its_own_median_colour() -> None:
    network, images, targets = small_network().eval(), draw(2, 3, 12, 12), torch.tensor([4, 0])
    maps = occlusion(network, images, targets, window=12, stride=12)
    for image, target, found in zip(images, targets.tolist(), maps, strict=True):
        covered = image.flatten(1).median(1).values[:, None, None].expand(3, 12, 12)
        before, after = (
            network(torch.stack([image, covered])).double().softmax(1)[:, target].logit()
        )
        torch.testing.assert_close(
            found, (before - after).float().expand(12, 12), rtol=1e-4, atol=1e-5
        )


def test_maps_of_a_spot_detector_are_known_exactly() -> None:
    images = torch.zeros(2, 3, 16, 16)
    images[0, :, 3, 11] = images[1, :, 14, 2] = 1
    spots = torch.zeros(2, 16, 16)
    spots[0, 3, 11] = spots[1, 14, 2] = 1
    network = SpotDetector()
    first, second = torch.tensor([0, 0]), torch.tensor([1, 1])
    # the gradient of the sum is 1 everywhere, so the map is what the layer puts out: 1 - 0.5
    torch.testing.assert_close(grad_cam(network, network.relu, images, first), 0.5 * spots)
    assert not grad_cam(network, network.relu, images, second).any()  # evidence against it
    falls = occlusion(network, images, first, window=1, stride=1)
    # the log-odds of two classes are the difference of their logits: 0.5 - -0.5, and 0 without it
    torch.testing.assert_close(falls, spots)
    rises = occlusion(network, images, second, window=1, stride=1)
    torch.testing.assert_close(rises, -falls)


def share_on_shape(maps: Tensor, masks: Tensor) -> float:
    """Share of N maps whose peak lies in the mask of its image."""
    hits = []
    for values, mask in zip(maps, masks, strict=True):
        row, column = find_peak(values)
        hits.append(bool(mask[round(row), round(column)]))
    return sum(hits) / len(hits)


def test_peaks_lie_on_shapes_for_a_network_that_sees_brightness() -> None:
    images, _, masks = draw_shapes(100, generator("peaks"))
    prepared, network = images / 255, SpotDetector(blur=3)
    with torch.no_grad():  # the shape is brighter than the background of its own image
        prepared = prepared - prepared.median(2).values.median(2).values[..., None, None] + 0.5
    targets = torch.zeros(100, dtype=torch.int64)
    maps = grad_cam(network, network.relu, prepared, targets)
    falls = occlusion(network, prepared, targets, window=4, stride=2)
    assert share_on_shape(maps, masks) > 0.9
    assert share_on_shape(falls, masks) > 0.9
    # a peak anywhere else, or that of another image, hits about as often as shapes cover pixels
    assert share_on_shape(maps.roll(1, 0), masks) < 0.5
    assert share_on_shape(-falls, masks) < 0.5


@pytest.mark.slow  # about 15 minutes on two cores
def test_peaks_lie_on_shapes_for_a_trained_resnet(tmp_path: Path) -> None:
    torch.set_num_threads(os.cpu_count() or 1)  # it runs alone
    assert main(["fit", "--config", str(RECIPE), "--log_dir", str(tmp_path)]) == 0
    path = tmp_path / "shapes_resnet18/version_0/checkpoints/best.ckpt"
    classifier, data = load_classifier(path), load_data(path)
    assert isinstance(data, ShapesDataModule)
    images, labels = (part[:320] for part in data.load("test"))
    masks = data.masks("test")[:320]
    right = classifier.predict_images(images).probabilities.argmax(1) == labels
    assert right.sum() >= 300
    prepared, labels, masks = data.prepare(images[right]), labels[right], masks[right]
    network = classifier.network
    layer = network.get_submodule(find_cam_layer(network, prepared))
    maps = {
        "Grad-CAM": grad_cam(network, layer, prepared, labels, num_shifts=3, mirrors="both"),
        "occlusion": occlusion(network, prepared, labels, window=8, stride=4),
    }
    shares = {name: share_on_shape(found, masks) for name, found in maps.items()}
    print(shares)  # noqa: T201  # for -s
    assert min(shares.values()) >= 0.8, shares
    for found in maps.values():  # the peaks of other images
        assert share_on_shape(found.roll(1, 0), masks) < 0.5


def test_every_network_has_a_row() -> None:
    assert set(ROWS) == {*networks.__all__} - {"Network"}


@EVERY
def test_layer_of_grad_cam_is_the_deepest_that_shows_places(name: str) -> None:
    make, _, size, expected = ROWS[name]
    with torch.device("meta"), torch.no_grad():
        network, images = make(), torch.empty(1, 3, size, size)
        assert find_cam_layer(network, images) == expected


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ResidualNetwork(7, depth=50, stem="imagenet"), "backbone.layer4"),
        (lambda: VGG(7, stem="imagenet"), "backbone.features.42"),  # 14×14, as in the paper
        (lambda: GoogLeNet(7), "backbone.inception5b"),
        (lambda: TorchvisionNetwork("resnet18", 7), "backbone.layer4"),
        (lambda: TorchvisionNetwork("densenet121", 7), "backbone.features"),
        (lambda: TorchvisionNetwork("mobilenet_v3_small", 7), "backbone.features"),
        (lambda: TorchvisionNetwork("swin_t", 7), "backbone.permute"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layer_of_grad_cam_at_224_pixels(make: Callable[[], Network], expected: str) -> None:
    with torch.device("meta"), torch.no_grad():
        assert find_cam_layer(make(), torch.empty(1, 3, 224, 224)) == expected


class Residual(nn.Module):
    """A bottleneck whose inner convolution keeps 8×8 cells, as at 32 pixels in ResNet-50's last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 1)
        self.outer = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(4, 4, 1, stride=2)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = self.outer(self.inner(x)) + self.shortcut(x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("frozen", [False, True])
def test_layer_of_grad_cam_is_no_branch_of_a_block(frozen: bool) -> None:
    network = Residual().requires_grad_(not frozen)
    assert find_cam_layer(network, draw(1, 3, 8, 8)) == "stem"
    assert not any(part._forward_hooks for part in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_network_without_a_fine_enough_layer_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3, stride=4), nn.Flatten(), nn.Linear(18, 2))
    with pytest.raises(ValueError, match=f"gives {MIN_CELLS}×{MIN_CELLS} cells or more"):
        find_cam_layer(network, draw(1, 3, 12, 12))


@EVERY
@pytest.mark.parametrize("frozen", [False, True])
def test_maps_of_every_network_leave_it_as_it_was(name: str, frozen: bool) -> None:
    make, size, _, layer = ROWS[name]
    network = make()
    network.requires_grad_(not frozen)
    network.backbone.eval()  # as a frozen one is, while the head trains
    network.head.train()
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 0.5) if parameter.requires_grad else None
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modes = {path: part.training for path, part in network.named_modules()}
    images, targets = draw(2, 3, size, size), torch.tensor([1, 6])
    # one pass: moved images go the same way
    maps = grad_cam(network, network.get_submodule(layer), images, targets, num_shifts=1)
    assert maps.shape == (2, size, size)
    assert maps.isfinite().all()
    assert not maps.requires_grad
    falls = occlusion(network, images, targets, window=size // 2, stride=size // 2)
    assert falls.shape == (2, size, size)
    assert {path: part.training for path, part in network.named_modules()} == modes
    for part in network.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
        assert not part._backward_hooks
    for parameter in network.parameters():
        assert parameter.requires_grad != frozen
        assert frozen == (parameter.grad is None)
        assert frozen or (parameter.grad == 0.5).all()
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_frozen_weights_change_no_map() -> None:
    network, images, targets = small_network(), draw(2, 3, 12, 12), torch.tensor([1, 2])
    free = grad_cam(network, network[4], images, targets)
    network.requires_grad_(False)
    assert torch.equal(grad_cam(network, network[4], images, targets), free)


def test_dropout_and_batch_statistics_rest_while_maps_are_made() -> None:
    network = nn.Sequential(nn.Dropout(0.5), *small_network())
    images, targets = draw(2, 3, 12, 12), torch.tensor([1, 2])
    maps = [grad_cam(network.train(mode), network[5], images, targets) for mode in (True, False)]
    assert torch.equal(*maps)
    # an image's map does not depend on the others
    alone = grad_cam(network, network[5], images[:1], targets[:1])
    torch.testing.assert_close(alone, maps[0][:1])


def test_hooks_come_off_and_modes_return_after_a_failure() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(3, 2)).train()
    for fail in (
        lambda: grad_cam(network, network[0], draw(1, 3, 12, 12), torch.tensor([0])),
        lambda: find_cam_layer(network, draw(1, 3, 12, 12)),
        lambda: occlusion(network, draw(1, 3, 12, 12), torch.tensor([0]), window=4, stride=4),
    ):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            fail()
        assert network[0].training
        assert not network[0]._forward_hooks


def test_occlusion_sees_the_spot_however_sure_the_network_is() -> None:
    images = torch.zeros(1, 3, 16, 16)
    images[0, :, 3, 11] = 200  # logits of 199.5 and -199.5: the probability is 1 either way
    images[0, :, 12, 4] = 100
    falls = occlusion(SpotDetector(), images, torch.tensor([0]), window=1, stride=1)
    assert float(falls[0, 3, 11]) == pytest.approx(399)
    assert float(falls[0, 12, 4]) == pytest.approx(199)


@pytest.mark.parametrize(("window", "stride"), [(13, 1), (3, 4), (3, 0), (0, 0)])
def test_squares_that_do_not_cover_the_image_are_refused(window: int, stride: int) -> None:
    with pytest.raises(ValueError, match="does not cover images of 12×12"):
        occlusion(
            small_network(), draw(1, 3, 12, 12), torch.tensor([0]), window=window, stride=stride
        )


def test_layers_without_places_and_wrong_targets_are_refused() -> None:
    network, images = small_network(), draw(2, 3, 12, 12)
    with pytest.raises(ValueError, match="N×C×H×W"):
        grad_cam(network, network[7], images, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="targets for 2 images"):
        grad_cam(network, network[0], images, torch.tensor([0]))
    with pytest.raises(ValueError, match="images must be"):
        occlusion(network, images[0], torch.tensor([0]), window=3, stride=1)
