"""How a provider is reached now: its key and address, from the settings, or from the environment where they are silent.

Read anew before every call, so that a changed key is in effect on the next one in every process.
"""

from __future__ import annotations

from pydantic import ValidationError

from photochanger import settings, vault
from photochanger.config import Config
from photochanger.db import Database
from photochanger.failures import ProviderAuth
from photochanger.providers import Access, Options, Provider
from photochanger.settings import Settings
from photochanger.tokens import MasterKeys

#: Characters of a provider's words that are kept.
MAX_DETAIL = 600


async def to(provider: Provider, db: Database, keys: MasterKeys, config: Config, *, key: str | None = None) -> Access:
    """The provider's key, options and limits; ``key``: another than the one that is set.

    Raises:
        ProviderAuth: it needs a key and there is none.
        InvalidSettings: its options are not this version's.
    """
    if not provider.needs_key:
        return Access(key="", options=provider.options())
    current = await settings.load(db)
    in_environment = getattr(config, f"{provider.name}_api_key")
    key = key or await vault.read(db, keys, provider.name) or (in_environment and in_environment.get_secret_value())
    if not key:
        raise ProviderAuth(
            f"There is no key for {provider.name}; set one in the settings, or with: "
            f"photochanger secrets set {provider.name}"
        )
    return Access(
        key=key,
        options=options_of(provider, current, config),
        public_base_url=current.public_base_url,
        usd_rate=current.usd_rate,
        private_hosts=frozenset(current.allowed_private_hosts),
    )


def options_of(provider: Provider, current: Settings, config: Config | None = None) -> Options:
    """The provider's options as the settings have them; its address from the environment where they do not say.

    Raises:
        InvalidSettings: they were saved by a version that knew others.
    """
    given = dict(current.providers.get(provider.name, {}))
    address = config and getattr(config, f"{provider.name}_base_url", None)
    if address:
        given.setdefault("base_url", address)
    try:
        return provider.options.model_validate(given)
    except ValidationError as error:
        raise settings.invalid(error, at=f"providers.{provider.name}") from None


def fit_to_tell(words: str, key: str) -> str:
    """A provider's words without our key (some repeat it), without what no row and no log can hold, not too long."""
    if key:
        words = words.replace(key, "[the key]")
    return words.encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")[:MAX_DETAIL]
