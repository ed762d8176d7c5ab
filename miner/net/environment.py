"""What this machine's environment says about hosts that the operator named: whom to trust, and over which proxy.

Promises: `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE`, `SSL_CERT_DIR`, `HTTPS_PROXY`, `HTTP_PROXY`,
`ALL_PROXY` and `NO_PROXY` count for the sequencer, the S3 store, ComfyUI and downloads of models. Never: for a host
that a task names, since a proxy would connect to addresses that the guard refuses. Loopback is never proxied.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy

from miner.net.addresses import PORTS, is_loopback
from miner.task.errors import ConfigError

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""The first one that is set counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The certificates of the authorities to trust: a file or a folder. `source`: the variable, or "certifi"."""

    path: str
    source: str

    def options(self) -> dict[str, str]:
        """As urllib3 takes them."""
        return {"ca_cert_dir" if Path(self.path).is_dir() else "ca_certs": self.path}

    def export(self) -> None:
        """For libraries of this process that read only OpenSSL's variables, as huggingface_hub does."""
        if self.source in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            os.environ.setdefault("SSL_CERT_DIR" if Path(self.path).is_dir() else "SSL_CERT_FILE", self.path)


def trust() -> Trust:
    """Whom to trust at a host that the operator named. Raises ConfigError for a variable that names no certificates."""
    for variable in CA_VARIABLES:
        if path := os.environ.get(variable, ""):
            _require_certificates(path, variable)
            return Trust(path=path, source=variable)
    return Trust(path=DEFAULT_CA_BUNDLE_PATH, source="certifi")


def _require_certificates(path: str, variable: str) -> None:
    hint = f"Set {variable} to a PEM file with the certificates of the authorities to trust, or unset it."
    try:
        if not Path(path).is_dir():
            ssl.create_default_context(cafile=path)
        elif not any(Path(path).iterdir()):
            raise ConfigError(f"{variable}: {path} is an empty folder", hint=hint)
    except ssl.SSLError as error:
        raise ConfigError(f"{variable}: {path} has no certificates", hint=hint) from error
    except OSError as error:
        raise ConfigError(f"{variable}: {path} cannot be read: {error.strerror}", hint=hint) from error


def proxy_for(url: str) -> str:
    """The proxy for a URL of a host that the operator named, maybe with a password; "" where there is none.

    Raises ConfigError for a proxy that is not http or https.
    """
    if is_loopback(urlsplit(url).hostname or ""):
        return ""
    proxy = select_proxy(url, get_environ_proxies(url, no_proxy=None))
    if not proxy:
        return ""
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        usable = urlsplit(proxy).scheme in ("http", "https") and urlsplit(proxy).hostname and urlsplit(proxy).port != 0
    except ValueError:
        usable = False
    if not usable:
        hint = "Set HTTPS_PROXY, HTTP_PROXY or ALL_PROXY to a URL such as http://proxy:3128, or NO_PROXY to the host."
        raise ConfigError(f"the proxy for {urlsplit(url).hostname} is not an http or https URL", hint=hint)
    return proxy


def websocket_options(url: str) -> dict[str, Any]:
    """`url`'s proxy and certificates as websocket-client takes them, which would proxy loopback too."""
    options = trust().options()
    chosen: dict[str, Any] = {"sslopt": {"ca_cert_path" if "ca_cert_dir" in options else "ca_certs": trust().path}}
    if not (proxy := proxy_for(url)):
        return {**chosen, "http_no_proxy": [urlsplit(url).hostname]}
    parts = urlsplit(proxy)
    user = (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
    port = parts.port or PORTS[parts.scheme]
    return {
        **chosen,
        "http_proxy_host": parts.hostname,
        "http_proxy_port": port,
        "http_proxy_auth": user,
        "proxy_type": "http",
    }


def shown(proxy: str) -> str:
    """A proxy without its user and password."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
