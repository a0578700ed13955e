"""Files of plain URLs: checked, resumed after a cut connection, never half there.

They are kept under `$KERAS_HOME/keras_vit` (by default `~/.keras/keras_vit`). `keras.utils.get_file` would do neither
of two things for them: go on where a connection was cut, and write the file under its name only when it is whole.
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


ATTEMPTS = 5
PAUSE = 0.5  # seconds before the second attempt, twice as many before the third, ...
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
# Refusals of a client that may be accepted a little later.
_PASSING = (http.client.REQUEST_TIMEOUT, http.client.TOO_EARLY, http.client.TOO_MANY_REQUESTS)


def cache_folder():
    """Cache folder for files from plain URLs."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home) / "keras_vit"


def fetch_url(url):
    """The `pathlib.Path` of a URL's file; errors as for `keras_vit.weights.download`."""
    import filelock
    from huggingface_hub import constants

    target = _place(url)
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


def _place(url):
    """Path of a URL's file in the cache; files of one name from two servers get two folders."""
    name = pathlib.PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    if not name:
        raise ValueError(f"a URL of weights must end in a file's name. Received: {url!r}")
    return cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:12] / name


class _RefusedError(ConnectionError):
    """A refusal that another attempt would not change."""


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
                f"{url} failed {ATTEMPTS} times ({problem}); what came is kept in {str(part)!r}: "
                f"the next call goes on at {done:,} bytes"
            ) from problem
    md5 = re.search(r"md5=([\w+/=]+)", headers.get("x-goog-hash", ""))
    if md5:
        check_hash(part, "md5", base64.b64decode(md5[1]).hex())
    os.replace(part, target)
    _version_file(part).unlink(missing_ok=True)


def _version_file(part):
    """Beside a part: which version of the file it is of, so that two are never spliced."""
    return part.with_name(f"{part.name}.version")


def _append(url, part, report):
    """Fetches what is missing of a part; returns the headers of the answer.

    Raises:
        ConnectionError: if the connection is cut.
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
        raise ConnectionError(f"the connection was cut after {done:,} of {total:,} bytes")
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
        again = error.code >= http.client.INTERNAL_SERVER_ERROR or error.code in _PASSING
        raise (ConnectionError if again else _RefusedError)(f"{url} is refused (HTTP {error.code})") from error
    except urllib.error.URLError as error:
        raise ConnectionError(f"{url} cannot be reached ({error.reason})") from error


def check_hash(path, algorithm, wanted, also_remove=None):
    """Removes a file whose hash is another, and raises a `ValueError`."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found == wanted:
        return
    path.unlink()
    if also_remove is not None:
        also_remove.unlink(missing_ok=True)
    raise ValueError(
        f"a downloaded file must have the {algorithm} that its server announced; it was removed, try again. "
        f"Received: {path.name}, {found} instead of {wanted}"
    )
