"""The certificate of a server that does TLS itself: looked at before anything starts."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509

from photochanger.config import Config, ConfigError


def host_of(config: Config) -> str | None:
    """The first host that the certificate is for; ``None`` where it has only patterns and addresses, or there is none.

    Raises:
        ConfigError: it cannot be used with its key.
    """
    certificate, key = config.tls_certificate, config.tls_key
    if certificate is None or key is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:  # what ssl says of wrong content is one too
        raise ConfigError(
            f"PHOTOCHANGER_TLS_CERTIFICATE: {certificate} with {key} cannot be used: {_words(error, key)}"
        ) from None
    try:
        names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return None
    hosts = names.value.get_values_for_type(x509.DNSName)
    return next((host for host in hosts if "*" not in host), None)


def _words(error: OSError, key: Path) -> str:
    if error.errno and not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if b"ENCRYPTED" in key.read_bytes():
        return "the key is locked by a password"
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return "the key is another certificate's"
    return "one of them is not in PEM form"
