"""Downloads published files: checked, cached, written atomically.

Files of the Hugging Face Hub are downloaded by `huggingface_hub` with its cache, tokens and offline mode. It is
imported only for a download, since its import takes longer than that of this package.
"""

import contextlib
import os
import pathlib
import re
import time

from keras_vit.origin import HUB
from keras_vit.weights.files.folders import NAMES
from keras_vit.weights.files.readers import shard_names
from keras_vit.weights.hub.http import ATTEMPTS, PAUSE, check_hash, check_reachable, fetch_url

HUB_NAMES = tuple(name for name in NAMES if not name.endswith((".tar", ".keras")))
WEIGHTS_FILE = HUB_NAMES[0]
_HTTP_LIBRARIES = ("requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2")


def download(source, with_config=True):
    """Fetches a file unless it is in the cache.

    Args:
        source: `hub:organization/repository` with, optionally, `@revision` and `/file` after it
            (`hf://`, `hf-hub:` and `hf_hub:` are the same); without a file the first that exists of
            `model.safetensors`, `pytorch_model.bin`, either of them sharded, and OpenCLIP's. Or an `http(s)://` URL.
        with_config: bool. Whether `config.json` and `preprocessor_config.json` are downloaded beside a file of the
            Hub, and the Hub is checked for a newer version of a cached file. Default True.

    Returns:
        The file's `pathlib.Path`; for a sharded model that of the index, with the shards beside it.

    Raises:
        FileNotFoundError: if there is no such repository, revision or file.
        PermissionError: if the repository requires an account that has accepted its terms.
        ConnectionError: if the server cannot be reached, or the offline mode (`HF_HUB_OFFLINE=1`) is on, and the file
            is not in the cache.
        OSError: if the file cannot be written, for example on a full disk.
        ValueError: if the source is invalid, or the file differs from the server's checksum; it is then removed.
    """
    source = str(source)
    if source.startswith(HUB):
        return _from_hub(source, with_config)
    return fetch_url(source)


def parse_hub(source):
    """`(repository, revision, file)` of a Hub source; revision and file may be `None`.

    Raises:
        ValueError: if it is malformed.
    """
    match = re.fullmatch(r"(?:hub:|hf://|hf-hub:|hf_hub:)([\w.-]+/[\w.-]+)(?:@(refs/pr/\d+|[^/]+))?(?:/(.+))?", source)
    if not match:
        raise ValueError(f"a Hub source is hub:organization/repository[@revision][/file]. Received: {source!r}")
    return match.groups()


def _from_hub(source, with_config):
    repository, revision, file = parse_hub(source)
    if file is None:
        path = _first_hub_file(repository, revision, with_config)
    else:
        path = _hub_file(repository, file, revision, with_config)
    folder = pathlib.PurePosixPath(file or WEIGHTS_FILE).parent
    for name in shard_names(path):
        _hub_file(repository, str(folder / name), revision, with_config)
    if with_config:
        clip = ("open_clip_config.json",) if path.name.startswith("open_clip_") else ()
        for name in ("config.json", "preprocessor_config.json", *clip):
            with contextlib.suppress(FileNotFoundError):
                _hub_file(repository, str(folder / name), revision, with_config)
    return path


def _first_hub_file(repository, revision, newest):
    """Downloads the first file of weights in a repository, by the usual names."""
    from huggingface_hub import errors

    missing = None
    for name in HUB_NAMES:
        try:
            return _hub_file(repository, name, revision, newest)
        except FileNotFoundError as error:
            if isinstance(error.__cause__, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
                raise
            missing = missing or error
    raise missing


def _hub_file(repository, file, revision, newest):
    import huggingface_hub
    from huggingface_hub import constants

    where = {"revision": revision, "cache_dir": constants.HF_HUB_CACHE}
    endpoint = os.environ.get("HF_ENDPOINT")
    what = f"{repository}/{file}" + (f"@{revision}" if revision else "")
    cached = huggingface_hub.try_to_load_from_cache(repository, file, **where)
    if isinstance(cached, str) and not newest:
        return pathlib.Path(cached)
    problem = None
    if not constants.HF_HUB_OFFLINE:
        try:
            check_reachable(endpoint or constants.ENDPOINT)
        except ConnectionError as error:
            problem = error
    if (problem or constants.HF_HUB_OFFLINE) and cached is not None and not isinstance(cached, str):
        raise FileNotFoundError(f"the Hub has no {what}, according to the cache") from problem
    if problem:
        # `huggingface_hub` would fail as well, after half a minute of retries.
        if isinstance(cached, str):
            return pathlib.Path(cached)
        raise ConnectionError(f"{what} is not in the cache, and {problem}") from problem
    with _clear_errors(what):
        path = pathlib.Path(_with_retries(repository, file, endpoint=endpoint, **where))
    blob = path.resolve()
    # Large files are stored under their SHA-256; a small file's name is another kind of hash.
    if cached != str(path) and re.fullmatch("[0-9a-f]{64}", blob.name):
        check_hash(blob, "sha256", blob.name, also_remove=path)
    return path


def _with_retries(*arguments, **options):
    """Retries `hf_hub_download` on network errors: some versions resume only in the next call."""
    import huggingface_hub

    for attempt in range(ATTEMPTS):
        time.sleep(attempt * PAUSE)
        try:
            return huggingface_hub.hf_hub_download(*arguments, **options)
        except Exception as error:
            # Its HTTP library depends on its version.
            if type(error).__module__.split(".")[0] not in _HTTP_LIBRARIES:
                raise
            problem = error
    raise ConnectionError(f"{'/'.join(arguments)} failed {ATTEMPTS} times ({problem}); try again") from problem


@contextlib.contextmanager
def _clear_errors(what):
    """Converts errors of `huggingface_hub` to built-in ones that say what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{what} requires an account that has accepted its terms; accept them on its page, then run `hf auth login`"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{what} is not in the cache, and the Hub cannot be reached or HF_HUB_OFFLINE is set"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise FileNotFoundError(f"the Hub has no {what}") from error
    except errors.HfHubHTTPError as error:
        raise ConnectionError(f"the Hub rejected the request for {what}: {error}") from error
