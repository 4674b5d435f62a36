"""What a user's data module does in its own way, where others rely on the usual one."""

from collections.abc import Iterable

from cnn_lightning.data.base import ImageDataModule

CHANGING_TRAINING = ("augment_images", "augmentation", "prepare_training")
"""The methods that alone decide what becomes of training images beside `prepare`."""


def overridden(data: ImageDataModule, methods: Iterable[str]) -> list[str]:
    """Those methods that are not `ImageDataModule`'s, be it by a subclass or set on the object."""
    return [
        name
        for name in methods
        if getattr(getattr(data, name), "__func__", None) is not getattr(ImageDataModule, name)
    ]
