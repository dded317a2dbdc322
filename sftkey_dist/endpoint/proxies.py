"""Connections to an endpoint: direct if it is on this machine, otherwise through the proxy that the environment
names."""

import ipaddress
import os
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import openai

from sftkey_dist.errors import ConfigError


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the environment variable that names it."""

    url: str
    variable: str

    def __str__(self) -> str:
        """The URL without credentials."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def proxy_of(url: str) -> Proxy | None:
    """The proxy for a URL; None if the server is on this machine or NO_PROXY exempts it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_this_machine(host) or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = urllib.request.getproxies()
    for scheme in (parts.scheme, "all"):
        if proxies.get(scheme):
            address = proxies[scheme]
            return Proxy(address if "://" in address else f"http://{address}", _variable(scheme))
    return None


def http_client(url: str, proxy: Proxy | None) -> httpx.Client:
    """A client for the server at ``url``, through ``proxy`` if there is one.

    Raises:
        ConfigError: The proxy, or the certificates that the environment names, cannot be used.
    """
    try:
        return openai.DefaultHttpxClient(
            proxy=proxy.url if proxy else None,
            trust_env=False,  # otherwise it would look for proxies itself
            verify=httpx.create_ssl_context(),  # uses SSL_CERT_FILE and SSL_CERT_DIR if they are set
        )
    except ImportError as error:
        raise ConfigError(
            f"endpoint {url}: the proxy {proxy} that {_named(proxy)} needs the package socksio; "
            f"run `pip install 'httpx[socks]'`, or unset the variable, or add the host to NO_PROXY"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be used: {error}"
        ) from error
    except (ValueError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"endpoint {url}: the proxy that {_named(proxy)} cannot be used; it must begin with http://, https:// or "
            f"socks5:// and name a host"
        ) from error


def _is_this_machine(host: str) -> bool:
    if host.rstrip(".") == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _variable(scheme: str) -> str:
    """Name of the variable that is set; lower case takes precedence, as is usual."""
    name = f"{scheme}_proxy"
    return next((known for known in (name, name.upper()) if os.environ.get(known)), f"the system's {scheme} proxy")


def _named(proxy: Proxy | None) -> str:
    return f"{proxy.variable} names" if proxy else "the environment names"
