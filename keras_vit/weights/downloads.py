"""Published files onto this machine: checked, resumed after a cut connection, cached, never half there.

Repositories of the Hugging Face Hub go through `huggingface_hub` with its cache, tokens and offline mode. Other URLs
are kept under `$KERAS_HOME/keras_vit` (by default `~/.keras/keras_vit`). `keras.utils.get_file` would do neither of
two things for them: go on where a connection was cut, and write the file under its name only when it is whole.
"""

import base64
import contextlib
import hashlib
import http.client
import os
import pathlib
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib

import filelock
import huggingface_hub
from huggingface_hub import constants, errors
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

WEIGHTS_FILE = "model.safetensors"
HUB = ("hub:", "hf://", "hf-hub:")
_ATTEMPTS = 5
_PAUSE = 0.5  # seconds before the second attempt, twice as many before the third, ...
_HTTP_LIBRARIES = ("requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2")
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    DownloadColumn(),
    TransferSpeedColumn(),
    TimeRemainingColumn(),
)


def is_remote(source):
    """Whether a source is a repository of the Hub or a URL rather than a path."""
    return str(source).startswith((*HUB, "https://", "http://"))


def download(source):
    """Fetches a file unless it is in the cache.

    Args:
        source: `hub:organisation/repository` with, optionally, `@revision` and `/file` behind it
            (`hf://` and `hf-hub:` are the same); without a file `model.safetensors` and, if there are any,
            `config.json` and `preprocessor_config.json` beside it. Or an `http(s)://` URL.

    Returns:
        The file's `pathlib.Path`.

    Raises:
        FileNotFoundError: if there is no such repository, revision or file.
        PermissionError: if the repository wants an account that has accepted its terms.
        ConnectionError: if the server cannot be reached, or the offline mode (`HF_HUB_OFFLINE=1`) is on, and the file
            is not in the cache.
        OSError: if the file cannot be written, for example on a full disk.
        ValueError: if what came is not what the server announced; it is removed.
    """
    source = str(source)
    if source.startswith(HUB):
        return _from_hub(source)
    return _from_url(source)


def parse_hub(source):
    """`(repository, revision, file)` of a Hub source; revision and file may be `None`.

    Raises:
        ValueError: if it is none.
    """
    match = re.fullmatch(r"(?:hub:|hf://|hf-hub:)([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?", source)
    if not match:
        raise ValueError(f"a Hub source is hub:organisation/repository[@revision][/file]. Received: {source!r}")
    return match.groups()


def _from_hub(source):
    repository, revision, file = parse_hub(source)
    path = _hub_file(repository, file or WEIGHTS_FILE, revision)
    if file is None:
        for name in ("config.json", "preprocessor_config.json"):
            with contextlib.suppress(FileNotFoundError, ConnectionError):
                _hub_file(repository, name, revision)
    return path


def _hub_file(repository, file, revision):
    where = {"revision": revision, "cache_dir": constants.HF_HUB_CACHE}
    endpoint = os.environ.get("HF_ENDPOINT")
    cached = huggingface_hub.try_to_load_from_cache(repository, file, **where)
    with _clear_errors(f"{repository}/{file}" + (f"@{revision}" if revision else "")):
        path = pathlib.Path(_with_retries(repository, file, endpoint=endpoint, **where))
    blob = path.resolve()
    # Large files are stored under their SHA-256; a small file's name is another kind of hash.
    if str(cached) != str(path) and re.fullmatch("[0-9a-f]{64}", blob.name):
        _check_hash(blob, "sha256", blob.name, also_remove=path)
    return path


def _with_retries(*arguments, **options):
    """`hf_hub_download`, tried again where the network fails: some versions go on at the next call only."""
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE)
        try:
            return huggingface_hub.hf_hub_download(*arguments, **options)
        except Exception as error:
            # Which library it speaks HTTP with depends on its version.
            if type(error).__module__.split(".")[0] not in _HTTP_LIBRARIES:
                raise
            problem = error
    raise ConnectionError(f"{'/'.join(arguments)} failed {_ATTEMPTS} times ({problem}); try again") from problem


@contextlib.contextmanager
def _clear_errors(what):
    """The errors of `huggingface_hub` as Python's own, each with what to do."""
    try:
        yield
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{what} wants an account that has accepted its terms; see its page, then `hf auth login`"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{what} is not in the cache, and the Hub cannot be reached or HF_HUB_OFFLINE is set"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise FileNotFoundError(f"the Hub has no {what}") from error
    except errors.HfHubHTTPError as error:
        raise ConnectionError(f"the Hub refuses {what}: {error}") from error


def _check_hash(path, algorithm, wanted, also_remove=None):
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


def cache_folder():
    """Where files of plain URLs are kept."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home) / "keras_vit"


def _from_url(url):
    target = cache_folder() / pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).name
    if target.exists():
        return target
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError(f"{url} is not in the cache {str(target.parent)!r}, and HF_HUB_OFFLINE is set")
    target.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{target}.lock"):
        if not target.exists():
            _fetch(url, target)
    return target


def _fetch(url, target):
    with _request(url, "HEAD") as response:
        headers = response.headers
    length = int(headers.get("Content-Length") or 0)
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    # Named by the version, so that two versions are never spliced.
    part = target.with_name(f"{target.name}.{zlib.crc32(version.encode()):08x}.part")
    with Progress(*_COLUMNS) as progress:
        task = progress.add_task(target.name, total=length or None)
        for attempt in range(_ATTEMPTS):
            time.sleep(attempt * _PAUSE)
            try:
                if _append(url, part, version, length, lambda done: progress.update(task, completed=done)):
                    break
                problem = "the connection was cut"
            except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
                problem = error
        else:
            done = part.stat().st_size if part.exists() else 0
            raise ConnectionError(
                f"{url} failed {_ATTEMPTS} times ({problem}); what came is kept in {str(part)!r}: "
                f"the next call goes on at {done:,} of {length:,} bytes"
            )
    md5 = re.search(r"md5=([\w+/=]+)", headers.get("x-goog-hash", ""))
    if md5:
        _check_hash(part, "md5", base64.b64decode(md5[1]).hex())
    os.replace(part, target)


def _append(url, part, version, length, report):
    """Fetches what is missing of a part; returns whether it is whole."""
    done = part.stat().st_size if part.exists() else 0
    if done and done == length:
        return True
    ranges = {"Range": f"bytes={done}-", "If-Range": version} if done and version else {}
    with _request(url, "GET", ranges) as response:
        resumes = response.status == http.client.PARTIAL_CONTENT
        done = done if resumes else 0
        with open(part, "ab" if resumes else "wb") as file:
            while chunk := response.read(_CHUNK):
                _write(file, chunk)
                done += len(chunk)
                report(done)
            os.fsync(file.fileno())
    return not length or done == length


def _write(file, chunk):
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise OSError(error.errno, f"a download cannot be written: {error.strerror}", file.name) from error


def _request(url, method, headers=None):
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code in (http.client.NOT_FOUND, http.client.GONE):
            raise FileNotFoundError(f"{url} does not exist (HTTP {error.code})") from error
        if error.code in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            raise PermissionError(f"{url} is not public (HTTP {error.code})") from error
        raise ConnectionError(f"{url} is refused (HTTP {error.code})") from error
    except urllib.error.URLError as error:
        raise ConnectionError(f"{url} cannot be reached ({error.reason})") from error
