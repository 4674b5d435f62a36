"""Images listed in a CSV file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from make_data import make_folder

from cnn_lightning.cli import main
from cnn_lightning.data import ImageCSVDataModule, ImageFolderDataModule, decoding
from cnn_lightning.data.cache import CACHE_FOLDER
from cnn_lightning.errors import MissingDataError, UserError
from cnn_lightning.images import fit_image, read_image


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CNN_LIGHTNING_CACHE", raising=False)
    return make_folder(tmp_path / "photos", ("cat", "dog"), per_class=10, size=(8, 8))


def write(folder: Path, *lines: str, name: str = "images.csv") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def rows_of(photos: Path, split: str, ending: str = "") -> list[str]:
    return [
        f"{path.relative_to(photos).as_posix()},{path.parent.name}{ending}"
        for path in sorted((photos / split).rglob("*.*g"))
    ]


def module(table: Path, **options: Any) -> ImageCSVDataModule:
    return ImageCSVDataModule(csv=str(table), **options)


def test_a_table_of_a_folder_is_the_folder(photos: Path) -> None:
    lines = rows_of(photos, "train", ",train") + rows_of(photos, "test", ",test")
    data = module(write(photos, "path,label,split", *lines))
    folder = ImageFolderDataModule(root=str(photos))
    assert data.class_names == folder.class_names == ("cat", "dog")
    assert data.image_shape == folder.image_shape == (3, 8, 8)
    for split in ("train", "test"):
        for own, other in zip(data.load(split), folder.load(split), strict=True):
            assert torch.equal(own, other)
        assert data.image_names(split) == folder.image_names(split)
        assert data.fingerprint(split) == folder.fingerprint(split)
    for stage in ("train", "val", "test"):
        assert torch.equal(data.stage_indices(stage), folder.stage_indices(stage))


def test_without_a_split_shares_are_held_out(photos: Path) -> None:
    lines = rows_of(photos, "train")
    data = module(write(photos, "path,label", *lines), test_fraction=0.2)
    assert data.load("train")[1].bincount().tolist() == [8, 8]
    assert data.load("test")[1].bincount().tolist() == [2, 2]
    names = {*data.image_names("train"), *data.image_names("test")}
    assert names == {line.partition(",")[0] for line in lines}


def test_the_split_may_name_the_validation_images(photos: Path) -> None:
    lines = rows_of(photos, "train")
    kinds = ["val" if number % 4 == 1 else "train" for number in range(20)]
    table = write(photos, "split,label,note,path", *(
        f'{kind},{line.split(",")[1]},"a, b",{line.split(",")[0]}'
        for kind, line in zip(kinds, lines, strict=True)
    ))  # fmt: skip
    data = module(table)
    names = data.image_names("train")
    assert [names[i] for i in data.stage_indices("val")] == [
        line.partition(",")[0] for line, kind in zip(lines, kinds, strict=True) if kind == "val"
    ]
    train, val = data.stage_indices("train").tolist(), data.stage_indices("val").tolist()
    assert sorted(train + val) == list(range(20))
    with pytest.raises(MissingDataError, match="has no line whose split is test"):
        data.load("test")


def test_paths_are_relative_to_the_table_or_to_a_root(photos: Path, tmp_path: Path) -> None:
    lines = rows_of(photos, "train")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    table = write(elsewhere, "path,label", *lines)
    with pytest.raises(UserError, match=r"images.csv, line \d+: .*elsewhere/train.*No such file"):
        module(table).load("train")
    data = module(table, root=str(photos))
    image = data.load("train")[0][0]
    assert torch.equal(image, read_image(photos / data.image_names("train")[0]))


def test_it_is_decoded_once_beside_the_cache_of_another_table(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [
        write(photos, "path,label", *rows_of(photos, split), name=f"{split}.csv")
        for split in ("train", "test")
    ]
    expected = [module(table, image_size=4).load("train")[0].clone() for table in tables]
    monkeypatch.setattr(decoding, "read_image", None)
    for table, images in zip(tables, expected, strict=True):
        data = module(table, image_size=4)
        assert torch.equal(data.load("train")[0], images)
    first = photos / module(tables[0], image_size=4).image_names("train")[0]
    assert torch.equal(expected[0][0], fit_image(read_image(first), 4, 4))


def test_the_cache_of_other_images_goes_whatever_the_table_is_called(photos: Path) -> None:
    for count in (20, 18):
        table = write(photos, "path,label", *rows_of(photos, "train")[:count], name="t[1].csv")
        module(table).load("train")
    (cache,) = (photos / CACHE_FOLDER).glob("*train*.npy")
    assert np.load(cache, allow_pickle=False).shape == (16, 3, 8, 8)


def test_spreadsheets_marks_blank_lines_and_quotes_are_read(photos: Path) -> None:
    (photos / "train/cat/cat_000.png").rename(photos / "a, b.png")
    lines = ["\ufeffpath,label", '"a, b.png",cat', "", *rows_of(photos, "train")]
    table = photos / "images.csv"
    table.write_bytes("\r\n".join(lines).encode())
    data = module(table)
    assert data.class_names == ("cat", "dog")
    assert "a, b.png" in {*data.image_names("train"), *data.image_names("test")}


FIRST = ["path,label,split", "train/cat/cat_000.png,cat,train", "train/dog/dog_000.png,dog,train"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*FIRST, ",cat,train"], "line 4: path is empty"),
        ([*FIRST, "train/cat/cat_002.png,,train"], "line 4: label is empty"),
        ([*FIRST, "train/cat/cat_002.png,cat"], "line 4: split is empty"),
        ([*FIRST, "train/cat/cat_002.png,cat,trian"], "line 4: split is trian"),
        ([*FIRST, "a,b.png,cat,train"], "line 4: it has more values than columns"),
        ([*FIRST, "test/cat/cat_000.png,eel,test"], "line 4: eel is a class without training"),
        (
            [*FIRST, "", "./train/cat/../cat/cat_000.png,cat,test"],
            r"line 5: .*cat_000.png is in line 2 already",
        ),
        ([*FIRST, "train/cat/gone.png,cat,train"], r"line 4: .*gone.png cannot be read: No such"),
        (FIRST[:2], r"has 1 class\(es\) of training images"),
        (FIRST[:1], r"has 0 class\(es\) of training images"),
        ([], "line 1: the columns are nothing"),
        (["file;label", "a;b"], "line 1: the columns are file;label"),
        ([*FIRST, '"train/cat/cat_002.png,cat,train'], "line 4: unexpected end of data"),
    ],
)
def test_a_mistake_is_named_with_its_line(lines: list[str], message: str, photos: Path) -> None:
    table = write(photos, *lines)
    with pytest.raises(UserError, match=rf"images\.csv,? ?{message}"):
        module(table).load("train")


def test_an_image_by_its_whole_and_its_relative_path_is_refused(photos: Path) -> None:
    path = (photos / "train/cat/cat_000.png").absolute()
    with pytest.raises(UserError, match=r"line 4: .*cat_000.png is in line 2 already"):
        module(write(photos, *FIRST, f"{path},cat,test"))


def test_a_file_that_is_no_table_is_refused(photos: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*gone\.csv"):
        module(photos / "gone.csv")
    (photos / "latin.csv").write_bytes("path,label\nk\xe4tzchen.png,cat\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not in UTF-8"):
        module(photos / "latin.csv")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        module(photos)


@pytest.mark.parametrize("way", ["link", "dots", "absolute"])
def test_a_way_out_of_the_folder_needs_a_word(way: str, photos: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    (photos / "train/cat/cat_000.png").rename(outside)
    (photos / "link.png").symlink_to(outside)
    name = {"link": "link.png", "dots": "../outside.png", "absolute": str(outside)}[way]
    table = write(photos, "path,label", f"{name},cat", *rows_of(photos, "train"))
    with pytest.raises(UserError, match=r"line 2: .*outside\.png, outside of .*\n.*allow_links"):
        module(table).load("train")
    data = module(table, allow_links=True)
    assert len({*data.image_names("train"), *data.image_names("test")}) == 20


def test_a_damaged_image_is_named(photos: Path) -> None:
    (photos / "train/cat/cat_003.jpg").write_bytes(b"")
    lines = rows_of(photos, "train", ",train") + rows_of(photos, "test", ",test")
    data = module(write(photos, "path,label,split", *lines))
    with pytest.raises(UserError, match=r"cat_003\.jpg is empty"):
        data.load("train")
    assert data.load("test")[1].bincount().tolist() == [10, 10]


def test_it_trains_and_is_tested_from_its_checkpoint(photos: Path, tmp_path: Path) -> None:
    lines = rows_of(photos, "train", ",train") + rows_of(photos, "test", ",test")
    table = write(photos, "path,label,split", *lines)
    argv = ["fit", "--data", "ImageCSVDataModule", "--data.csv", str(table), "--model", "LeNet"]
    argv += ["--data.image_size", "28", "--data.sampling", "balanced"]
    argv += ["--model.class_weights", "balanced", "--trainer.max_epochs", "1"]
    assert main([*argv, "--run", "own", "--log_dir", str(tmp_path / "logs")]) == 0
    assert main(["test", "--ckpt_path", str(tmp_path / "logs/own")]) == 0
