"""Whether a server can be reached at all, before anything waits and retries for it."""

import socket
import time
import urllib.parse
import urllib.request

_CONNECT_TIMEOUT = 5  # seconds for a connection
_PAUSE = 0.5  # seconds before the second and last attempt
# Seconds in which a server that was reached, or was not, is not tried again.
_REACHED, _MISSED = 30, 5
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}

# host and port -> (time of the attempt, the error or `None`)
_attempts = {}


def check_reachable(url):
    """Opens and closes a connection to the server of a URL, or to the proxy before it.

    Whoever is offline learns it at once, or after one short retry. A connection that breaks later is another matter.

    Args:
        url: str.

    Raises:
        ConnectionError: if there is no connection: no such host, refused, no network, or no answer in time.
    """
    address = _address(url)
    if address is None:
        return
    known = _attempts.get(address)
    if known is None or time.monotonic() - known[0] > (_MISSED if known[1] else _REACHED):
        error = _connect(address)
        if error is not None:
            time.sleep(_PAUSE)
            error = _connect(address)
        known = _attempts[address] = time.monotonic(), error
    if known[1] is not None:
        raise ConnectionError(
            f"{address[0]} cannot be reached ({known[1]}). Check the network or the proxy; files that are in the cache "
            "are used without it"
        ) from known[1]


def _connect(address):
    """The error of a connection, or `None`."""
    try:
        socket.create_connection(address, _CONNECT_TIMEOUT).close()
    except OSError as error:
        return error
    return None


def _address(url):
    """`(host, port)` that a request of a URL connects to; `None` where that cannot be told."""
    parts = urllib.parse.urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    try:
        if proxy and not urllib.request.proxy_bypass(parts.netloc):
            parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None
