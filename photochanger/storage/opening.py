"""Which store this process uses, as the environment says."""

from __future__ import annotations

from photochanger.config import Config
from photochanger.storage.local import LocalStorage


def open_storage(config: Config) -> LocalStorage:
    """The store of ``PHOTOCHANGER_STORE_URL``, else the media root alone.

    Raises:
        ConfigError: the store's address, or what is needed to use it, is wrong.
    """
    if config.store_url is None:
        return LocalStorage(config.media)
    from photochanger.storage.s3 import S3Storage

    return S3Storage(config.media, config.store_url)
