"""Downloads files from plain URLs: checked, resumed after an interruption, written atomically.

They are cached under `$KERAS_HOME/keras_vit` (by default `~/.keras/keras_vit`). `keras.utils.get_file` neither resumes
an interrupted download nor keeps a partial file from its final name.
"""

import base64
import functools
import hashlib
import http.client
import os
import pathlib
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request

_CONNECT_TIMEOUT = 5  # seconds for a connection
_PAUSE = 0.5  # seconds before the second and last attempt
# Seconds for which the result of a connection test is reused, after success and after failure.
_REACHED, _MISSED = 30, 5
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}

# host and port -> (time of the attempt, the error or `None`)
_attempts = {}


def check_reachable(url):
    """Opens and closes a connection to the server of a URL, or to the proxy before it.

    Without a network it fails at once, or after one short retry.

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
            f"{address[0]} cannot be reached ({known[1]}). Check the network or the proxy; cached files can be "
            "used without it"
        ) from known[1]


def _connect(address):
    """Tries a connection; returns its error or `None`."""
    try:
        socket.create_connection(address, _CONNECT_TIMEOUT).close()
    except OSError as error:
        return error
    return None


def _address(url):
    """Returns `(host, port)` that a request of a URL connects to; `None` if unknown."""
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


ATTEMPTS = 5
PAUSE = 0.5  # seconds before the second attempt, twice as many before the third, ...
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
# Client errors that are worth a retry.
_TRANSIENT = (http.client.REQUEST_TIMEOUT, http.client.TOO_EARLY, http.client.TOO_MANY_REQUESTS)


def cache_folder():
    """Returns the cache folder of files from plain URLs."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home) / "keras_vit"


def fetch_url(url):
    """Downloads a URL's file unless it is cached; returns its `pathlib.Path`. Errors as for `download`."""
    import filelock
    from huggingface_hub import constants

    target = _cache_path(url)
    if target.exists():
        return target
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError(f"{url} is not in the cache {str(cache_folder())!r}, and HF_HUB_OFFLINE is set")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"$KERAS_HOME must be a folder that can be written: {error.strerror}", error.filename
        ) from error
    with filelock.FileLock(f"{target}.lock"):
        if not target.exists():
            _fetch(url, target)
    return target


def _cache_path(url):
    """Returns the path of a URL's file in the cache; every URL has its own folder."""
    name = pathlib.PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    if not name:
        raise ValueError(f"a URL of weights must end in a file name. Received: {url!r}")
    return cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:12] / name


class _RefusedError(ConnectionError):
    """Error of a server that a retry would not change."""


def _fetch(url, target):
    from rich import progress as bars

    check_reachable(url)
    part = target.with_name(f"{target.name}.part")
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns) as progress:
        task = progress.add_task(target.name, total=None)
        for attempt in range(ATTEMPTS):
            time.sleep(attempt * PAUSE)
            try:
                headers = _append(url, part, functools.partial(progress.update, task))
                break
            except _RefusedError:
                raise
            except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
                problem = error
        else:
            done = part.stat().st_size if part.exists() else 0
            raise ConnectionError(
                f"{url} failed {ATTEMPTS} times ({problem}); the partial download is kept in {str(part)!r}: "
                f"the next call resumes at {done:,} bytes"
            ) from problem
    md5 = re.search(r"md5=([\w+/=]+)", headers.get("x-goog-hash", ""))
    if md5:
        check_hash(part, "md5", base64.b64decode(md5[1]).hex())
    os.replace(part, target)
    _version_file(part).unlink(missing_ok=True)


def _version_file(part):
    """Returns the path of the file with the version of a partial download, so that two versions are never joined."""
    return part.with_name(f"{part.name}.version")


def _append(url, part, report):
    """Downloads the rest of a partial file; returns the headers of the response.

    Raises:
        ConnectionError: if the connection is interrupted.
    """
    version_file = _version_file(part)
    done = part.stat().st_size if part.exists() else 0
    version = version_file.read_text() if version_file.exists() else ""
    ranges = {"Range": f"bytes={done}-", "If-Range": version} if done and version else {}
    with _request(url, ranges) as response:
        resumes = response.status == http.client.PARTIAL_CONTENT
        done = done if resumes else 0
        remaining = response.headers.get("Content-Length")
        total = None if remaining is None else done + int(remaining)
        with open(part, "ab" if resumes else "wb") as file:
            version_file.write_text(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
            while chunk := response.read(_CHUNK):
                _write(file, chunk)
                done += len(chunk)
                report(completed=done, total=total)
            os.fsync(file.fileno())
    if total not in (None, done):
        raise ConnectionError(f"the connection was interrupted after {done:,} of {total:,} bytes")
    return response.headers


def _write(file, chunk):
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise OSError(error.errno, f"a download cannot be written: {error.strerror}", file.name) from error


def _request(url, headers):
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code in (http.client.NOT_FOUND, http.client.GONE):
            raise FileNotFoundError(f"{url} does not exist (HTTP {error.code})") from error
        if error.code in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            raise PermissionError(f"{url} is not public (HTTP {error.code})") from error
        again = error.code >= http.client.INTERNAL_SERVER_ERROR or error.code in _TRANSIENT
        raise (ConnectionError if again else _RefusedError)(f"{url} was rejected (HTTP {error.code})") from error
    except urllib.error.URLError as error:
        raise ConnectionError(f"{url} cannot be reached ({error.reason})") from error


def check_hash(path, algorithm, expected, also_remove=None):
    """Removes a file with a wrong hash, and raises a `ValueError`."""
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, algorithm).hexdigest()
    if actual == expected:
        return
    path.unlink()
    if also_remove is not None:
        also_remove.unlink(missing_ok=True)
    raise ValueError(
        f"a downloaded file must have the {algorithm} hash of its server; it was removed, try again. "
        f"Received: {path.name}, {actual} instead of {expected}"
    )
