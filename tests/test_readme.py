"""Every command of the README runs, in small, and its Python too.

A command of ours runs through `main` in a folder that has all that the README speaks of: data in
the real formats, pictures, runs. What is new in the README is found by itself; a placeholder needs
a row in `PLACEHOLDERS`, flags that make a slow command quick one in `QUICK`.
"""

import ast
import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import pytest
import readme
from make_data import make_cifar10, make_folder, make_mnist
from PIL import Image
from small import UNDRAWN, make_weights_of, small_arguments

from cnn_lightning import data
from cnn_lightning.cli import main
from cnn_lightning.data import CIFAR10DataModule, ShapesDataModule

ROOT = readme.README.parent
COMMANDS = [command for command in readme.commands() if readme.ours(command) is not None]
# of commands that differ in these alone, the last is run: all named runs are alike here
NAMES = ("--run", "--output")
RUNS = ("one", "two")
CHECKPOINT = "logs/one/version_0/checkpoints/best.ckpt"
# what stands for something of the reader's own; the nth of several takes the nth
PLACEHOLDERS: dict[str, Sequence[str]] = {
    "RUN": RUNS,
    "NAME": RUNS,
    "PATH": (CHECKPOINT,),
    "CKPT": (CHECKPOINT,),
    "FILE": ("output",),
    "PHOTOS": ("data/photos",),
    "CIFAR_JPEG": ("data/cifar_jpeg",),
    "NEW": ("mine",),
}
# written last, these win: what a machine without a GPU, a cluster or time can do
ON_ONE_CPU = [
    *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1"),
    "--trainer.precision=32-true",  # tests/test_configs.py trains in bfloat16
]
# tests/test_configs.py draws the pictures of every recipe
FAST = [*UNDRAWN, "--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=1"]
QUICK: dict[str, list[str]] = {
    "fit": [*ON_ONE_CPU, *FAST, "--log_dir=fitted"],  # not where runs for other commands are made
    "inspect": ["--layers", "first", "--num_images", "1"],
    "tune": ["--steps", "20"],
    "benchmark": [*UNDRAWN, "--steps", "1", "--repeats", "1", "--workers", "0"],
}
# commands that cannot be run in a test, each with the reason
_NOISE = "of noise no rate is suggested, and rightly; tests/commands/test_tune.py has more to learn"
EXCEPTIONS: dict[str, str] = {
    "cnn-lightning tune --config configs/cifar10_resnet18.yaml": _NOISE,
    "cnn-lightning tune --config configs/quickstart.yaml": _NOISE,
}
# written by tests/test_extending.py, which runs what the README says of them
ELSEWHERE = ("mine.yaml", "sweep_", "--run mine")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it, with two runs."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "configs", folder / "configs")
    make_mnist(folder / "data")
    make_mnist(folder / "data", variant="fashion")
    make_cifar10(folder / "data", 4)
    photos = make_folder(folder / "data/photos")
    make_folder(folder / "data/cifar_jpeg", size=(32, 32))
    listed = [f"{path.relative_to(folder)},{path.parent.name}" for path in photos.glob("*/*/*.*")]
    (folder / "photos.csv").write_text("\n".join(["path,label", *listed]))
    pictures = ["photo.jpg", "a.jpg", "b.jpg", "seven.png", "three.png", "mine/a.png", "mine/b.png"]
    (folder / "mine").mkdir()
    for name in pictures:
        Image.effect_noise((40, 30), 50).save(folder / name)
    with contextlib.chdir(folder):
        for run in RUNS:
            config = Path("configs/quickstart.yaml")
            flags = small_arguments(config, Path("data"))
            assert main(["fit", "--config", str(config), "--run", run, *flags]) == 0
    return folder


@pytest.fixture
def reader(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(CIFAR10DataModule, "files", make_cifar10(place / "data", 4))
    with contextlib.chdir(place):
        yield place


def make_run(name: str) -> None:
    if not Path("logs", name).exists():
        shutil.copytree(Path("logs", RUNS[0]), Path("logs", name))


def fill_in(argv: Sequence[str]) -> Iterator[str]:
    """Arguments with values for placeholders, patterns and variables of the shell."""
    seen: dict[str, int] = {}
    for word in argv:
        if re.fullmatch(r"[A-Z][A-Z_]+", word) is None:
            found = sorted(map(str, Path().glob(word))) if re.search(r"\w/\*", word) else []
            yield from found or [re.sub(r"\$\{?\w+\}?", "1", word)]
            continue
        assert word in PLACEHOLDERS, f"README: {word} needs a row in PLACEHOLDERS"
        values = PLACEHOLDERS[word]
        yield values[seen.get(word, 0) % len(values)]
        seen[word] = seen.get(word, 0) + 1


def option(argv: Sequence[str], name: str) -> str | None:
    return next((argv[i + 1] for i, word in enumerate(argv[:-1]) if word == name), None)


def brief(argv: Sequence[str]) -> list[str]:
    """Flags that make a `fit` one small step, and the weights that it looks for."""
    if option(argv, "--config") is None:
        steps = ["--trainer.max_steps=1", "--trainer.val_check_interval=1"]
        return [*steps, "--data.batch_size=2", "--data.eval_batch_size=4"]
    config = Path(option(argv, "--config") or "")
    assert config.is_file(), f"README: there is no {config}"
    make_weights_of(config)
    root = option(argv, "--data.root")
    flags = small_arguments(config, Path("data"), max_steps=1, batch_size=2)
    return [*flags, "--data.root", root] if root else flags


def try_out(command: str) -> None:
    """Run a command of the README in small, in the current folder, and what it needs before it.

    Raises:
        AssertionError: It fails.
    """
    argv = list(fill_in(readme.ours(command) or []))
    more = QUICK.get(argv[0], [])
    if argv[0] == "fit" and "--help" not in argv:
        more = [*brief(argv), *more]
        # what a command itself says of pictures is tried out
        said = tuple(w.partition(".")[0] for w in argv if w.startswith(("--feature", "--kernels")))
        more = [flag for flag in more if not said or not flag.startswith(said)]
        if option(argv, "--ckpt_path") == "last":
            place = argv.index("--ckpt_path")
            assert main([*argv[:place], *argv[place + 2 :], *more]) == 0
            more += ["--trainer.max_steps=2"]
    elif argv[0] in ("tune", "benchmark"):
        config = Path(option(argv, "--config") or "")
        _, _, *data_flags = small_arguments(config, Path("data"), batch_size=4)
        more = [*data_flags, *more]
        if option(argv, "--model.image_size") is not None:
            more += ["--model.image_size", "32"]
        if option(argv, "--data") == "ShapesDataModule":
            more += ["--data.num_images", "40", "--data.num_test", "20"]
        if argv[0] == "benchmark" and option(argv, "--parts") is None:
            more += ["--parts", "data,step"]
        if option(argv, "--max_batch_size") is not None:
            more += ["--max_batch_size", "32"]
    elif argv[0] == "compare":
        names = argv[1 : next((i for i, word in enumerate(argv) if word[:2] == "--"), None)]
        for name in names:
            make_run(name)
    elif (run := option(argv, "--run")) is not None:
        make_run(run)
    elif (option(argv, "--ckpt_path") or "").startswith("logs/"):
        make_run(Path(option(argv, "--ckpt_path") or "").parts[1])
    assert main([*argv, *more]) == 0, f"README: this fails: {command}"


def is_elsewhere(command: str) -> bool:
    return any(part in command for part in ELSEWHERE)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 30
    assert all(command in COMMANDS for command in EXCEPTIONS)


def test_every_program_is_known() -> None:
    for command in readme.commands():
        readme.ours(command)


def distinct(commands: Sequence[str]) -> list[str]:
    """The last of all commands that give the same arguments but for `NAMES`."""
    found: dict[tuple[str, ...], str] = {}
    for command in commands:
        argv = readme.ours(command) or []
        named = [option(argv, name) for name in NAMES]
        found[tuple(word for word in argv if word not in named)] = command
    return list(found.values())


@pytest.mark.parametrize("command", distinct([c for c in COMMANDS if not is_elsewhere(c)]))
def test_command_of_the_readme_runs(
    command: str, reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command in EXCEPTIONS:
        pytest.skip(EXCEPTIONS[command])
    try_out(command)


@pytest.mark.parametrize(
    "typo",
    [
        "cnn-lightening fit --config configs/quickstart.yaml",
        "cnn-lightning trian --config configs/quickstart.yaml",
        "cnn-lightning fit --config configs/quickstrat.yaml",
        "cnn-lightning fit --config configs/quickstart.yaml --model.activaton relu",
        "cnn-lightning fit --config configs/quickstart.yaml --trainer.device 2",
        "cnn-lightning convolve --kernel sobel_z",
        "cnn-lightning compare RUN RUNN",
        "cnn-lightning compare RUN RUN --htm report.html",
        "cnn-lightning validate --ckpt_paht PATH",
        "cnn-lightning test --run one --ckpt_path bset",
        "torchrun -m cnn_lightning -- fit --config configs/quickstart.yaml --traner.devices 8",
    ],
)
def test_a_misspelt_command_would_be_noticed(typo: str, reader: Path) -> None:
    (found,) = readme.commands(f"```bash\n{typo}  # as here\n```\n")
    assert found == typo
    with pytest.raises(AssertionError):
        try_out(found)


def test_commands_are_found_wherever_they_stand() -> None:
    text = """
`cnn-lightning show --config X`, or `fit --config Y`, not `fit` nor `--config Z` nor `tests/x`
```bash
A=1 cnn-lightning a --x "1 2" && srun cnn-lightning b \\
  --y  # with a remark
torchrun --n 2 -m cnn_lightning -- c; python -m cnn_lightning d
```
```python
cnn-lightning e
```
"""
    found = [readme.ours(command) for command in readme.commands(text)]
    in_block = [["a", "--x", "1 2"], ["b", "--y"], ["c"], ["d"]]
    assert found == [*in_block, ["show", "--config", "X"], ["fit", "--config", "Y"]]


def test_python_of_the_readme_runs(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From first to last, as one program, with few images and training cut to two steps."""
    make_run("quickstart")
    if not Path("model.onnx").exists():  # by the README's own command
        assert main(["export", "best", "--run", "quickstart", "--output", "model.onnx"]) == 0

    class Few(ShapesDataModule):
        def __init__(self, **kwargs: Any) -> None:
            brief = {"num_images": 40, "num_test": 20, "image_size": 16, "batch_size": 4}
            super().__init__(**{**brief, **kwargs})

    class Short(lightning.Trainer):
        def __init__(self, **kwargs: Any) -> None:
            brief = {"max_steps": 2, "limit_val_batches": 1, "enable_progress_bar": False}
            super().__init__(**{**kwargs, **brief, "logger": False, "enable_checkpointing": False})

    monkeypatch.setattr(lightning, "Trainer", Short)
    monkeypatch.setattr(data, "ShapesDataModule", Few)
    in_files = readme.files()
    code = [
        block.text
        for block in readme.blocks()
        if block.language == "python" and not any(block.text in text for text in in_files.values())
    ]
    assert len(code) >= 3
    names: dict[str, Any] = {"__name__": "readme"}
    for text in code:
        exec(compile(ast.parse(text), "README.md", "exec"), names)
    assert len(names["probabilities"]) == 2
