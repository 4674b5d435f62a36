"""Command lines of `fit` read for their data alone."""

from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from cnn_lightning.commands.arguments import Start
from cnn_lightning.commands.messages import plain_building, plain_errors
from cnn_lightning.commands.training import TrainingCLI
from cnn_lightning.data import ImageDataModule
from cnn_lightning.runs import RunFolder


def build_data(command: str, argv: list[str]) -> tuple[ImageDataModule, Namespace]:
    """Check a command line as `fit` would, and build its data module and nothing else.

    Args:
        command: Named in the remedies of errors.
        argv: Options of `fit`; only the data must be among them.

    Returns:
        The data module, and all settings as parsed.

    Raises:
        UserError: `fit` would refuse the settings, or the data module cannot be built.
    """
    with plain_errors(command):
        cli = DataCLI(argv)
    return cli.datamodule, cli.settings


class DataCLI(TrainingCLI):
    """Reads a command line as `fit` does, and builds the data module alone.

    Args:
        argv: What `fit` would be given.
    """

    def __init__(self, argv: list[str]) -> None:
        super().__init__("fit", Start("fit", argv, RunFolder(Path("logs/show/version_0"))))

    @property
    def settings(self) -> Namespace:
        """All settings, those of the data among them."""
        settings: Namespace = self.config[self.command]
        return settings

    @override
    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_core_arguments_to_parser(parser)
        # so that none need be named: it is checked and never built
        parser.set_defaults(model={"class_path": "cnn_lightning.LeNet"})

    @override
    def before_instantiate_classes(self) -> None:
        """Nothing: a precision or checkpoint that is not there does not matter here."""

    @override
    def instantiate_classes(self) -> None:
        settings = self.settings.clone()
        del settings["model"], settings["trainer"]
        config = self.config.clone()
        config[self.command] = settings
        with plain_building(self.command):
            built = self.parser.instantiate(config)
        self.datamodule: ImageDataModule = built[self.command].data

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""
