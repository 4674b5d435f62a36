import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from cnn_lightning.data import ImageFolderDataModule, decoding, listed
from cnn_lightning.data.base import Split
from cnn_lightning.data.cache import CACHE_FOLDER
from cnn_lightning.errors import MissingDataError, UserError
from cnn_lightning.files import part_of
from cnn_lightning.images import fit_image, read_image

CLASSES = ("cat", "dog", "eel")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CNN_LIGHTNING_CACHE", raising=False)


def save(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draws = torch.Generator().manual_seed(seed)  # a test's own pixels
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=draws)
    Image.fromarray(pixels.numpy()).save(path)


def fill(parent: Path, count: int, suffix: str = ".png") -> None:
    for label, name in enumerate(CLASSES):
        for number in range(count):
            save(parent / name / f"{number}{suffix}", seed=100 * label + number)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    fill(tmp_path / "photos" / "train", 4)
    fill(tmp_path / "photos" / "test", 2)
    return tmp_path / "photos"


def module(root: Path, **kwargs: Any) -> ImageFolderDataModule:
    return ImageFolderDataModule(root=str(root), **kwargs)


def refuse_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoding, "read_image", fail)


def test_images_labels_and_names_are_those_of_the_files(photos: Path) -> None:
    data = module(photos)
    assert data.class_names == CLASSES
    assert data.num_classes == 3
    assert data.image_shape == (3, 8, 8)
    splits: tuple[tuple[Split, int], ...] = (("train", 4), ("test", 2))
    for split, count in splits:
        images, labels = data.read(split)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert labels.tolist() == [0] * count + [1] * count + [2] * count
        names = data.image_names(split)
        assert names[0] == f"{split}/cat/0.png"
        for image, name in zip(images, names, strict=True):
            assert torch.equal(image, read_image(photos / name))


def test_order_holds_over_many_tasks_and_threads(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_MAX_CHUNK", 1)
    data = module(photos, num_workers=3)
    images, _ = data.read("train")
    for image, name in zip(images, data.image_names("train"), strict=True):
        assert torch.equal(image, read_image(photos / name))


def test_second_read_decodes_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = module(photos)
    images, labels = first.read("train")
    refuse_to_decode(monkeypatch)
    second = module(photos)
    again, labels_again = second.read("train")
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)
    assert first.fingerprint("train") == second.fingerprint("train")
    with pytest.raises(AssertionError, match="decoded again"):  # the control
        second.read("test")


def test_images_are_not_copied_and_the_file_stays_as_it_is(photos: Path) -> None:
    images, _ = module(photos).read("train")
    (cache,) = (photos / CACHE_FOLDER).glob("train*.npy")
    before = cache.read_bytes()
    images.zero_()
    assert cache.read_bytes() == before
    assert np.load(cache, allow_pickle=False).shape == (12, 3, 8, 8)


def change(photos: Path) -> None:
    save(photos / "train/dog/1.png", seed=999)


def touch(photos: Path) -> None:
    os.utime(photos / "train/dog/1.png", ns=(1, 1))


def remove(photos: Path) -> None:
    (photos / "train/dog/1.png").unlink()


def add(photos: Path) -> None:
    save(photos / "train/dog/new.png", seed=999)


@pytest.mark.parametrize(
    ("act", "line"),
    [
        (change, "0 added, 0 removed, 1 changed"),
        (touch, "0 added, 0 removed, 1 changed"),
        (remove, "0 added, 1 removed, 0 changed"),
        (add, "1 added, 0 removed, 0 changed"),
    ],
)
def test_other_files_are_noticed_and_said(
    act: Any, line: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = module(photos)
    before.load("train")
    assert "first use: decoding 12 images" in capsys.readouterr().out
    act(photos)
    data = module(photos)
    images, labels = data.load("train")
    assert line in capsys.readouterr().out
    names = data.image_names("train")
    assert len(names) == len(labels)
    for image, name in zip(images, names, strict=True):
        assert torch.equal(image, read_image(photos / name))
    assert data.fingerprint("train") != before.fingerprint("train")
    assert len(list((photos / CACHE_FOLDER).glob("train*.npy"))) == 1


def test_a_damaged_cache_is_made_anew(photos: Path) -> None:
    images, _ = module(photos).read("train")
    expected = images.clone()
    (cache,) = (photos / CACHE_FOLDER).glob("train*.npy")
    for content in (b"", cache.read_bytes()[:-1], b"pickle me"):
        other = cache.with_suffix(".tmp")
        other.write_bytes(content)
        other.replace(cache)
        assert torch.equal(module(photos).read("train")[0], expected)


def test_size_and_channels_have_their_own_cache(photos: Path) -> None:
    colour = module(photos, image_size=4).read("train")[0]
    grey = module(photos, channels=1).read("train")[0]
    assert torch.equal(colour[0], fit_image(read_image(photos / "train/cat/0.png"), 4, 4))
    assert torch.equal(grey[0], read_image(photos / "train/cat/0.png", mode="L"))
    assert len(list((photos / CACHE_FOLDER).glob("train*.npy"))) == 2


def test_size_is_that_of_the_images_or_224(photos: Path) -> None:
    assert module(photos).image_shape == (3, 8, 8)
    save(photos / "train/cat/3.png", seed=1, size=(16, 12))  # a later one is fitted
    assert module(photos).read("train")[0].shape == (12, 3, 8, 8)
    save(photos / "train/cat/0.png", seed=1, size=(16, 16))
    assert module(photos).image_shape == (3, 224, 224)
    for name in CLASSES:
        save(photos / "train" / name / "0.png", seed=1, size=(16, 12))
    assert module(photos, channels=1).image_shape == (1, 224, 224)
    assert module(photos, image_size=5).image_shape == (3, 5, 5)


@pytest.mark.parametrize("below", ["", "train"])
def test_without_test_folder_a_share_is_held_out(below: str, tmp_path: Path) -> None:
    fill(tmp_path / below, 10)

    def names(seed: int, fraction: float = 0.2) -> tuple[set[str], set[str]]:
        data = module(tmp_path, split_seed=seed, test_fraction=fraction)
        for split in ("train", "test"):
            images, _ = data.read(split)
            for image, name in zip(images, data.image_names(split), strict=True):
                assert torch.equal(image, read_image(tmp_path / name))
        assert data.class_names == CLASSES
        assert data.read("test")[1].tolist() == [0] * 2 + [1] * 2 + [2] * 2
        return set(data.image_names("train")), set(data.image_names("test"))

    train, test = names(seed=0)
    assert len(train) == 24
    assert len(test) == 6
    assert not train & test
    assert names(seed=0) == (train, test)
    assert names(seed=1)[1] != test


def test_one_file_more_moves_at_most_one_other_into_or_out_of_what_is_held_out(
    tmp_path: Path,
) -> None:
    fill(tmp_path, 20)

    def held_out() -> set[str]:
        data = module(tmp_path, test_fraction=0.3)
        data.read("test")
        return set(data.image_names("test"))

    before = held_out()
    for number in range(3):
        save(tmp_path / f"cat/!{number}.png", seed=0)  # before all others, and so moves them
        now = held_out()
        assert len((now ^ before) - {f"cat/!{number}.png"}) <= 1
        before = now


def test_two_splits_of_one_folder_keep_both_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 10)
    for seed in (0, 1):
        module(tmp_path, split_seed=seed).read("train")
    refuse_to_decode(monkeypatch)
    for seed in (0, 1):
        module(tmp_path, split_seed=seed).read("train")


def test_classes_may_be_links_nested_and_lack_test_images(photos: Path, tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", 3)
    (photos / "train/fox").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(UserError, match=r"fox/.*outside of .*\n.*allow_links"):
        module(photos).read("train")
    data = module(photos, allow_links=True)
    assert data.class_names == (*CLASSES, "fox")
    assert data.read("train")[1].bincount().tolist() == [4, 4, 4, 9]
    assert "train/fox/cat/0.png" in data.image_names("train")
    assert data.read("test")[1].bincount(minlength=4).tolist() == [2, 2, 2, 0]


@pytest.mark.parametrize("hidden", [".DS_Store", ".git/x.png", CACHE_FOLDER + "/x.png"])
def test_hidden_folders_are_no_classes(hidden: str, tmp_path: Path) -> None:
    fill(tmp_path, 2)
    (tmp_path / hidden).parent.mkdir(exist_ok=True)
    (tmp_path / hidden).touch()
    assert module(tmp_path).class_names == CLASSES


@pytest.mark.parametrize(
    "left",
    ["config.yaml", "metrics.csv", "checkpoints/last.ckpt", "../../show/cats/statistics.csv"],
)
def test_a_folder_of_runs_is_no_class(
    left: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, 2)
    run = tmp_path / "logs/cats/version_0"
    save(run / "figures/kernels.png", seed=0)
    assert module(tmp_path).class_names == CLASSES
    said = f"{tmp_path / 'logs'} is no class: it holds what commands left\n"
    assert capsys.readouterr().out == said
    (run / "figures").rename(run / "pictures")
    # the control: anyone may call a folder so
    assert module(tmp_path).class_names == (*CLASSES, "logs")
    (run / left).parent.mkdir(parents=True, exist_ok=True)
    (run / left).touch()
    assert module(tmp_path).class_names == CLASSES


def test_a_read_only_root_is_cached_elsewhere(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / CACHE_FOLDER).write_text("in the way: also stops root, whom no mode stops")
    expected = module(photos).read("train")[0]
    assert len(list((tmp_path / "home/.cache/cnn-lightning").rglob("train*.npy"))) == 1
    with monkeypatch.context() as patched:
        refuse_to_decode(patched)
        assert torch.equal(module(photos).read("train")[0], expected)
    (tmp_path / "home").rename(tmp_path / "gone")
    (tmp_path / "home").touch()
    with pytest.raises(
        UserError, match=r"no place for the decoded images.*\n.*CNN_LIGHTNING_CACHE"
    ):
        module(photos).read("train")


def test_the_cache_lies_where_the_user_says(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNN_LIGHTNING_CACHE", str(tmp_path / "chosen"))
    module(photos).read("train")
    assert len(list((tmp_path / "chosen").rglob("train*.npy"))) == 1
    assert not (photos / CACHE_FOLDER).exists()


def test_a_full_disk_ends_with_an_error_and_leaves_nothing(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left.*\n.* GB are needed"):
        module(photos).read("train")
    assert list((photos / CACHE_FOLDER).iterdir()) == []


def test_what_a_killed_process_left_half_written_is_removed(photos: Path) -> None:
    cache = photos / CACHE_FOLDER
    module(photos).read("train")
    (whole,) = cache.glob("train*.npy")
    stale = part_of(whole)
    stale.touch()
    os.utime(stale, (0, 0))
    written = part_of(whole)  # by another process, now
    other = cache / ".test_8x8x3.0123.npy.part"
    for path in (written, other):
        path.touch()
    os.utime(other, (0, 0))
    add(photos)
    module(photos).read("train")
    assert {path.name for path in cache.glob(".*")} == {written.name, other.name}


def test_an_unreadable_image_is_named_and_nothing_half_written_stays(photos: Path) -> None:
    (photos / "train/dog/1.png").write_bytes(b"no image")
    threads = threading.active_count()
    with pytest.raises(UserError, match=r"photos/train/dog/1\.png is none of"):
        module(photos, num_workers=2).read("train")
    assert threading.active_count() == threads
    assert list((photos / CACHE_FOLDER).iterdir()) == []


def test_several_at_once_do_not_disturb_each_other(photos: Path) -> None:
    results: list[torch.Tensor] = []
    threads = [
        threading.Thread(target=lambda: results.append(module(photos).read("train")[0]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(result, results[0]) for result in results)
    assert len(list((photos / CACHE_FOLDER).iterdir())) == 2


@pytest.mark.parametrize(
    ("state", "split"), [("fit", "train"), ("validate", "train"), ("test", "test")]
)
def test_prepare_data_decodes_what_the_command_needs(state: str, split: str, photos: Path) -> None:
    data = module(photos)
    data.prepare_data()
    assert not (photos / CACHE_FOLDER).exists()  # nothing is known without a trainer
    data.trainer = Trainer(logger=False, accelerator="cpu", barebones=True)
    data.trainer.state.fn = TrainerFn(state)
    data.prepare_data()
    (cache,) = (photos / CACHE_FOLDER).glob("*.npy")
    assert cache.name.startswith(split)


def test_the_fingerprint_follows_files_classes_and_size(photos: Path) -> None:
    first = module(photos).fingerprint("train")
    assert len(first) == 64
    assert first == module(photos, batch_size=7).fingerprint("train")
    assert first != module(photos).fingerprint("test")
    assert first != module(photos, image_size=4).fingerprint("train")
    moved = photos.rename(photos.with_name("moved"))
    assert first == module(moved).fingerprint("train")


def test_a_val_folder_is_said_to_be_unused(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module(photos)
    assert "not used" not in capsys.readouterr().out
    fill(photos / "val", 1)
    module(photos)
    assert "photos/val is not used" in capsys.readouterr().out


def test_normalisation_is_imagenets_or_the_users(photos: Path) -> None:
    assert module(photos).mean == listed.IMAGENET_MEAN
    assert module(photos, channels=1).std == (0.5,)
    assert module(photos, mean=[0.1, 0.2, 0.3]).mean == (0.1, 0.2, 0.3)
    assert module(photos, std=np.array([0.5, 0.25, 1])).std == (0.5, 0.25, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0"),
        ({"mean": (0.5,)}, "do not fit 3 channel"),
        ({"std": (0.5, 0.5, 0.0)}, "std above 0"),
    ],
)
def test_impossible_options_are_refused(
    options: dict[str, Any], message: str, photos: Path
) -> None:
    with pytest.raises(UserError, match=message):
        module(photos, **options)


def test_a_missing_root_is_named_with_the_layout(tmp_path: Path) -> None:
    told = r"there is no folder .*absent\n.*<root>/train/<class>/.*--data\.root"
    with pytest.raises(UserError, match=told):
        module(tmp_path / "absent")


def test_an_empty_class_is_an_error(photos: Path) -> None:
    (photos / "train/empty").mkdir()
    (photos / "train/empty/notes.txt").touch()
    for size in (None, 8):  # found while the size is chosen, and while files are listed
        with pytest.raises(UserError, match=r"photos/train/empty holds no images\n.*delete"):
            module(photos, image_size=size).read("train")


def test_files_that_are_no_images_are_counted_once_and_named(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(photos / "train/cat/fifth.png", seed=5)
    (photos / "train/cat/fifth.png").rename(photos / "train/cat/fifth.JFIF")
    module(photos).load("train")
    assert "not used" not in capsys.readouterr().out
    for name in ("dog/d.txt", "cat/in/c.jp2", "cat/.hidden", "cat/b.heic", "cat/a.heic"):
        (photos / "train" / name).parent.mkdir(exist_ok=True)
        (photos / "train" / name).touch()
    data = module(photos)
    assert len(data.read("train")[0]) == 13
    data.read("train")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "not used" in line]
    assert line == (
        f"4 file(s) in {photos}/train are not used, as images end otherwise: "
        "cat/a.heic, cat/b.heic, cat/in/c.jp2, …"
    )


def test_an_empty_test_folder_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "train", 4)
    (tmp_path / "test").mkdir()
    data = module(tmp_path)
    assert len(data.load("train")[0]) == 12
    with pytest.raises(MissingDataError, match=r"/test holds no images\n.*delete"):
        data.load("test")


def test_a_class_of_two_images_is_too_small_for_three_parts(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    data = module(tmp_path)
    assert len(data.load("train")[0]) == len(data.load("test")[0]) == 3
    for stage in ("train", "val"):
        with pytest.raises(UserError, match=r"class cat has one image left .*\n.*three images"):
            data.stage_indices(stage)  # type: ignore[arg-type]  # two of three
    assert len(data.stage_indices("test")) == 3


def test_a_test_class_unknown_in_training_is_an_error(photos: Path) -> None:
    save(photos / "test/yak/0.png", seed=0)
    with pytest.raises(UserError, match=r"photos/test/yak is a class that .*train does not have"):
        module(photos)


def test_fewer_than_two_classes_are_an_error(tmp_path: Path) -> None:
    save(tmp_path / "cat/0.png", seed=0)
    with pytest.raises(UserError, match=r"holds 1 class folder\(s\), not 2 or more"):
        module(tmp_path)


def test_a_class_called_train_is_told_where_it_has_to_lie(tmp_path: Path) -> None:
    for name in ("car", "train"):
        save(tmp_path / name / "0.png", seed=0)
    with pytest.raises(UserError, match=r"train holds 0 class") as caught:
        module(tmp_path)
    assert f"{tmp_path}/train/train, {tmp_path}/train/car" in caught.value.remedy


def test_a_test_folder_alone_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path / "test", 1)
    with pytest.raises(UserError, match="holds test/ but no train/"):
        module(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such name")
def test_a_class_whose_name_is_not_in_utf_8_is_refused(photos: Path) -> None:
    (photos / "train/dog").rename(photos / "train" / os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match="not in UTF-8\n  rename it"):
        module(photos)


def test_a_class_of_one_image_cannot_be_split(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with pytest.raises(UserError, match="class cat has fewer than two images"):
        module(tmp_path).read("train")


def test_a_link_to_nowhere_is_named(photos: Path) -> None:
    (photos / "train/dog/lost.png").symlink_to(photos / "nowhere.png")
    with pytest.raises(UserError, match=r"dog/lost\.png cannot be read: No such file"):
        module(photos).read("train")
