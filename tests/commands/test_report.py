"""The page of `compare --html`: whole in itself, safe whatever the runs are called, bounded."""

import base64
import csv
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from make_run import make_run
from PIL import Image

from cnn_lightning.cli import main
from cnn_lightning.commands import report
from cnn_lightning.runs import RunFolder

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}<script>alert(2)</script>"
# what an element needs no end tag for
VOID = ("meta", "img", "input", "br", "hr", "link")
# attributes that make a browser load or send something
LOADING = ("src", "srcset", "href", "action", "formaction", "data", "poster", "background", "ping")
TEST = {"test/accuracy": 0.5, "test/top3": 0.75, "test/calibration_error": 0.0625}


class Page(HTMLParser):
    """The elements of a page and its text; complains of elements that are not closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def loads(self) -> Iterator[str]:
        for _, attributes in self.elements:
            yield from (attributes[name] or "" for name in LOADING if name in attributes)


def draw(path: Path, size: tuple[int, int] = (30, 20), *, noise: bool = False) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3)
    seed = torch.Generator().manual_seed(len(str(path)))
    pixels = torch.randint(256, shape, generator=seed, dtype=torch.uint8)
    image = Image.fromarray((pixels if noise else pixels[:1, :1].expand(shape)).numpy())
    image.save(path, format="png")
    return path.read_bytes()


def make_pictured_run(path: Path, epochs: Sequence[int] = (0, 1, 2)) -> RunFolder:
    folder = make_run(path, at_the_end=dict(TEST))
    for name in ("confusion_matrix", "class_accuracy", "worst_mistakes", "reliability"):
        draw(folder.figures / f"test_{name}.png")
    draw(folder.figures / "validation_predictions.png")
    for epoch in epochs:
        draw(folder.figures / f"feature_maps/backbone.conv1/epoch_{epoch:03}.png")
        draw(folder.figures / f"kernels/backbone.conv1/epoch_{epoch:03}.png")
    return folder


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    make_pictured_run(tmp_path / "logs/one/version_0")
    make_pictured_run(tmp_path / "logs/two/version_0", epochs=(0, 2, 3))
    return tmp_path / "logs"


def make(log_dir: Path, *runs: str) -> Page:
    path = log_dir.parent / "page.html"
    assert main(["compare", *runs, "--log_dir", str(log_dir), "--html", str(path)]) == 0
    return Page(path.read_text(encoding="utf-8"))


def pictures(page: Page) -> list[bytes]:
    prefix = "data:image/png;base64,"
    sources = [image["src"] or "" for image in page.named("img")]
    assert all(source.startswith(prefix) for source in sources)
    return [base64.b64decode(source.removeprefix(prefix), validate=True) for source in sources]


def test_page_holds_every_picture_of_the_runs_and_their_curves(log_dir: Path) -> None:
    page = make(log_dir, "one", "two")
    held = pictures(page)
    files = [path.read_bytes() for path in log_dir.glob("*/version_0/figures/**/*.png")]
    curves = (log_dir / "compare/one-vs-two.png").read_bytes()
    assert sorted(held) == sorted([*files, curves])
    for image, content in zip(page.named("img"), held, strict=True):
        with Image.open(io.BytesIO(content)) as picture:
            assert (image["width"], image["height"]) == tuple(map(str, picture.size))
        assert image["alt"]
    alts = [image["alt"] or "" for image in page.named("img")]
    assert "Feature maps of backbone.conv1 of two, after epoch 3" in alts
    assert any("one reaches 0.7500 in epoch 2" in alt for alt in alts)


def test_page_loads_nothing_and_runs_nothing(log_dir: Path) -> None:
    page = make(log_dir, "one", "two")
    assert page.named("script") == page.named("link") == page.named("iframe") == []
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in page.loads())
    anchors = {attributes.get("id") for _, attributes in page.elements}
    assert {target[1:] for target in page.loads() if target.startswith("#")} <= anchors
    assert not any(name.startswith("on") for _, given in page.elements for name in given)
    text = (log_dir.parent / "page.html").read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text
    policy = next(meta["content"] for meta in page.named("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_the_policy_lets_the_page_have_its_own_style(log_dir: Path) -> None:
    page = make(log_dir, "one")
    text = (log_dir.parent / "page.html").read_text(encoding="utf-8")
    style = text[text.index("<style>") + 7 : text.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in str(page.named("meta"))
    assert "style" not in {name for _, given in page.elements for name in given}


def test_names_of_strangers_are_text(log_dir: Path) -> None:
    name = HOSTILE.replace("/", "\\")
    classes = {f"test/accuracy/{HOSTILE}": 0.25}
    settings = {"model": {"class_path": HOSTILE, "init_args": {HOSTILE: HOSTILE}}}
    folder = make_run(
        log_dir / name / "version_0", settings=settings, at_the_end={**TEST, **classes}
    )
    draw(folder.figures / f"feature_maps/{name}/epoch_000.png")
    page = make(log_dir, name, "two")
    assert page.named("script") == []
    assert len([image for image in page.named("img") if "src" in image]) == len(pictures(page))
    assert not any(name.startswith("on") for _, given in page.elements for name in given)
    assert page.text.count(HOSTILE) >= 3  # class, setting and config
    assert page.text.count(name) >= 3  # run and layer
    assert "{{7*7}}" in page.text


def test_table_shows_what_the_tests_measured(log_dir: Path) -> None:
    measured = {**TEST, "test/accuracy/cat": 0.75, "test/accuracy/dog": 0.25}
    make_run(log_dir / "three/version_0", at_the_end=measured)
    page = make(log_dir, "three")
    words = page.text.split()
    assert words[words.index("test/accuracy") + 1] == "0.5000"
    assert words[words.index("test/calibration_error") + 1] == "0.0625"
    assert words[words.index("dog") + 1] == "0.2500"
    assert words.index("dog") < words.index("cat")


def test_of_several_tests_the_page_says_whose_it_shows(log_dir: Path) -> None:
    make_run(log_dir / "often/version_0")
    make_run(log_dir / "once/version_0", accuracies=(0.5,), at_the_end=dict(TEST))
    with RunFolder(log_dir / "often/version_0").metrics.open() as stream:
        header, *rows = csv.reader(stream)
    tests = [["10", *[""] * (len(header) - 1), "0.4"], ["20", *[""] * (len(header) - 1), "0.5"]]
    with RunFolder(log_dir / "often/version_0").metrics.open("w") as stream:
        csv.writer(stream).writerows(
            [[*header, "test/accuracy"], *([*row, ""] for row in rows), *tests]
        )
    page = make(log_dir, "often", "once")
    assert "often: 2 checkpoints were tested." in page.text
    assert "once: 1 checkpoint" not in page.text


def test_a_frame_of_each_epoch_and_only_one_is_shown(log_dir: Path) -> None:
    page = make(log_dir, "one", "two")
    choices = [one for one in page.named("input") if one["name"] == "feature_maps-0"]
    assert [one["class"] for one in choices] == ["f0", "f1", "f2", "f3"]
    assert ["checked" in one for one in choices] == [False, False, False, True]
    labels = {one["for"] for one in page.named("label")}
    assert {one["id"] for one in page.named("input")} == labels
    assert "no picture of epoch 1" in page.text
    assert "no picture of epoch 3" in page.text
    assert "of each of the first ten classes, unless others were named" in page.text
    css = (Path(report.__file__).parent / "report.css").read_text()
    for number in range(report.MAX_EPOCHS):
        assert re.search(rf"\.f{number}:checked ~ \.f{number}\b", css)


def test_what_is_not_there_is_said(log_dir: Path) -> None:
    make_run(log_dir / "bare/version_0")
    page = make(log_dir, "bare", "two")
    assert "not drawn yet (cnn-lightning test --run NAME --ckpt_path best)" in page.text
    alone = make(log_dir, "bare")
    assert "Confusion matrix: not drawn yet" in alone.text
    assert "Feature maps: not drawn by any run" in alone.text
    assert len(pictures(alone)) == 1


def test_page_is_bounded_and_says_what_it_leaves_out(
    log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = log_dir / "two/version_0/figures"
    for epoch in range(40):
        path = folder / f"feature_maps/backbone.conv1/epoch_{epoch:03}.png"
        draw(path, (60, 60), noise=True)
    monkeypatch.setattr(report, "MAX_PICTURES", 120_000)
    page = make(log_dir, "one", "two")
    shown = [image["alt"] for image in page.named("img") if "conv1 of two" in (image["alt"] or "")]
    assert "Feature maps of backbone.conv1 of two, after epoch 39" in shown
    assert "Feature maps of backbone.conv1 at epochs 1, 2, 3, 4" in page.text
    assert f"{folder / 'feature_maps/backbone.conv1/epoch_017.png'}: no room left" in page.text
    assert sum(len(image["src"] or "") for image in page.named("img")) <= 120_000


def test_texts_of_any_length_leave_the_page_within_its_bound(log_dir: Path) -> None:
    long = {f"{number}" + '"' * 300: '"' * 2000 for number in range(110)}
    classes = {f"test/accuracy/{number}" + "&" * 500: 0.5 for number in range(110)}
    for name in ("a", "b"):
        settings = {"model": {"class_path": name, "init_args": long if name == "a" else {}}}
        make_run(log_dir / name / "version_0", settings=settings, at_the_end={**TEST, **classes})
    page = make(log_dir, "a", "b")
    size = (log_dir.parent / "page.html").stat().st_size
    assert size < report.MAX_PAGE - report.MAX_PICTURES
    assert "10 classes of higher accuracy" in page.text
    assert "11 settings that differ" in page.text  # those above, and the class of the model


def test_files_that_are_no_pictures_are_not_taken_in(log_dir: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    figures = log_dir / "one/version_0/figures"
    (figures / "test_reliability.png").unlink()
    (figures / "test_reliability.png").symlink_to(secret)
    whole = (figures / "test_confusion_matrix.png").read_bytes()
    (figures / "test_confusion_matrix.png").write_bytes(whole[:-20])
    page = make(log_dir, "one")
    assert b"the secret" not in b"".join(pictures(page))
    assert whole[:-20] not in pictures(page)
    assert f"{figures / 'test_reliability.png'}: not a whole PNG file" in page.text
    assert f"{figures / 'test_confusion_matrix.png'}: not a whole PNG file" in page.text


def test_mistakes_are_refused_with_a_remedy(
    log_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: str | Path) -> str:
        assert main(["compare", *map(str, arguments), "--log_dir", str(log_dir)]) == 2
        return capsys.readouterr().err

    assert "ending in .html" in refuse("one", "two", "--html", "page.pdf")
    assert "give 1 to 6" in refuse(*["one"] * 7, "--html", "page.html")
    assert "1 run to compare" in refuse("one")
    (tmp_path / "file").touch()
    assert "--html" in refuse("one", "--html", tmp_path / "file/page.html")
