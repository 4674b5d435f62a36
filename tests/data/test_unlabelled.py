"""Files without labels: which are found, and how they stream."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from make_data import close_folder, make_folder
from PIL import Image

from cnn_lightning.data import UnlabelledDataModule, decoding
from cnn_lightning.data.loader import Batch
from cnn_lightning.data.unlabelled import FileLoader, Unread, list_files
from cnn_lightning.errors import UserError
from cnn_lightning.images import fit_image, read_image

SHAPE = (3, 8, 8)


def save(path: Path, bright: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (bright, bright, bright)).save(path)
    return path


def listed(*paths: Path, allow_links: bool = False) -> tuple[list[Path], list[Unread]]:
    return list_files([str(path) for path in paths], allow_links=allow_links)


def test_folders_are_searched_to_their_ends_and_files_taken_as_they_are(tmp_path: Path) -> None:
    found = [save(tmp_path / "a" / name) for name in ("1.png", "deep/er/2.JPG", "deep/3.webp")]
    named = save(tmp_path / "picture.png").rename(tmp_path / "picture")
    for name in (".hidden.png", ".git/x.png"):
        save(tmp_path / "a" / name)
    (tmp_path / "a/notes.txt").touch()
    (tmp_path / "empty").mkdir()
    files, unread = listed(
        named, tmp_path / "a", found[0], tmp_path / "gone.png", tmp_path / "empty"
    )
    assert files == [named, found[0], found[2], found[1], tmp_path / "gone.png"]
    assert [Path(one.path).name for one in unread] == ["notes.txt", "empty"]
    assert "does not end in .jpg" in unread[0].reason


def test_a_folder_that_cannot_be_listed_is_told_and_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = save(tmp_path / "a/1.png")
    close_folder(monkeypatch, tmp_path / "a/b")
    close_folder(monkeypatch, tmp_path / "c")
    files, unread = listed(tmp_path / "a", tmp_path / "c")
    assert files == [found]
    assert [one.path for one in unread] == [str(tmp_path / "a/b"), str(tmp_path / "c")]
    assert "Permission denied" in unread[0].reason


def test_a_link_out_of_a_folder_needs_a_word(tmp_path: Path) -> None:
    outside = save(tmp_path / "outside.png")
    link = tmp_path / "a/link.png"
    inside = save(tmp_path / "a/inside.png")
    link.symlink_to(outside)
    (tmp_path / "a/near.png").symlink_to("inside.png")
    (tmp_path / "a/loop.png").symlink_to("loop.png")
    files, unread = listed(tmp_path / "a")
    assert set(files) >= {inside, tmp_path / "a/near.png"}
    assert link not in files
    assert any("link.png is a link to" in one.reason for one in unread)
    assert link in listed(tmp_path / "a", allow_links=True)[0]
    assert listed(link) == ([link], [])  # the user's own word


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """20 images, of which the 4th, 5th and last cannot be read."""
    paths = [save(tmp_path / f"{number:02}.png", number) for number in range(20)]
    for place in (4, 5, 19):
        paths[place].write_bytes(b"")
    return paths


READABLE = [place for place in range(20) if place not in (4, 5, 19)]


def loader(files: list[Path], **options: Any) -> FileLoader:
    return FileLoader(files, SHAPE, **{"num_workers": 2, "unread": [], "batch_size": 6, **options})


@pytest.mark.parametrize("batch_size", [1, 6, 17, 100])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_what_can_be_read_comes_in_order_and_the_rest_is_listed(
    batch_size: int, num_workers: int, files: list[Path]
) -> None:
    unread: list[Unread] = []
    batches = list(loader(files, batch_size=batch_size, num_workers=num_workers, unread=unread))
    assert [len(batch.indices) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    indices = torch.cat([batch.indices for batch in batches]).tolist()
    assert indices == READABLE
    images = torch.cat([batch.images for batch in batches])
    assert images.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == READABLE
    assert all((batch.labels == -1).all() for batch in batches)
    assert [Path(one.path) for one in unread] == [files[4], files[5], files[19]]
    assert all("is empty" in one.reason for one in unread)
    assert len(batches) <= len(loader(files, batch_size=batch_size))


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_files(world_size: int, files: list[Path]) -> None:
    unread: list[Unread] = []
    loaders = [
        loader(files, rank=rank, world_size=world_size, unread=unread, batch_size=2)
        for rank in range(world_size)
    ]
    indices = torch.cat([batch.indices for one in loaders for batch in one])
    assert indices.sort().values.tolist() == READABLE
    assert len({len(one) for one in loaders}) == 1
    assert len(unread) == 3


def test_threads_go_on_while_the_network_works_and_few_images_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save(tmp_path / f"{number:03}.png") for number in range(60)]
    monkeypatch.setattr(decoding, "_MAX_CHUNK", 2)
    num_read = 0
    far = threading.Event()  # a whole batch and more was read, that nobody has asked for
    lock = threading.Lock()
    original = decoding.read_image

    def counted(path: Path, **options: Any) -> torch.Tensor:
        nonlocal num_read
        with lock:
            num_read += 1
            if num_read >= 8 + 8:
                far.set()
        return original(path, **options)

    monkeypatch.setattr(decoding, "read_image", counted)
    batches: Iterator[Batch] = iter(loader(paths, batch_size=8, num_workers=1))
    taken = 0
    for number, batch in enumerate(batches):
        taken += len(batch.indices)
        if number == 0:
            assert far.wait(timeout=60)
        # at most a batch ahead, and a task in hand
        assert num_read <= taken + 8 + 2 * 2
    assert taken == num_read == 60


def test_threads_end_when_nobody_asks_any_more(files: list[Path]) -> None:
    before = threading.active_count()
    batches = iter(loader(files, batch_size=1))
    next(batches)
    assert threading.active_count() > before
    batches.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == before


def module(*paths: Path, **options: Any) -> UnlabelledDataModule:
    return UnlabelledDataModule(
        paths=[str(path) for path in paths],
        class_names=["cat", "dog"],
        image_shape=options.pop("image_shape", SHAPE),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        **options,
    )


def test_a_data_module_gives_names_images_and_batches(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", per_class=3, test=False)
    data = module(photos, eval_batch_size=4)
    data.trainer = Trainer(accelerator="cpu", barebones=True)
    data.setup("predict")
    names = data.image_names("test")
    assert names == sorted(str(path) for path in photos.rglob("*.*g"))
    (first, second) = data.predict_dataloader()
    images = torch.cat([first.images, second.images])
    for name, image in zip(names, images, strict=True):
        assert torch.equal(image, fit_image(read_image(name), 8, 8))
    assert torch.equal(data.stored_images("test", torch.tensor([4, 1])), images[[4, 1]])
    grey = module(photos, image_shape=(1, 8, 8))
    grey.setup("predict")
    assert next(iter(grey.predict_dataloader())).images.shape == (6, 1, 8, 8)


def test_it_is_for_prediction_alone(tmp_path: Path) -> None:
    data = module(save(tmp_path / "a.png"))
    for stage in ("fit", "validate", "test"):
        with pytest.raises(UserError, match="has no labels"):
            data.setup(stage)
    with pytest.raises(UserError, match="has no labels"):
        data.load("train")


def test_nothing_to_predict_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match=r"no images to predict: .*a is an empty folder"):
        module(tmp_path / "a").setup("predict")
    with pytest.raises(UserError, match="no images to predict: nothing was named"):
        module().setup("predict")
    with pytest.raises(UserError, match="num_workers is 0"):
        module(tmp_path, num_workers=0)


def test_a_classifier_of_four_channels_takes_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 channels are wanted"):
        module(save(tmp_path / "a.png"), image_shape=(4, 8, 8)).setup("predict")
