"""The origin of weights, as text that a file may carry to other machines."""

import pathlib
import urllib.parse

HUB = ("hub:", "hf://", "hf-hub:", "hf_hub:")


def is_remote(source):
    """Returns whether a source is a repository of the Hub or a URL rather than a path."""
    return str(source).startswith((*HUB, "https://", "http://"))


def portable_origin(origin):
    """Removes from an origin what is nobody else's business: folders of this machine, a URL's user, password and query.

    Args:
        origin: str or `None`, as in `keras_vit.metadata.ModelMetadata`.

    Returns:
        str: of a path the last part, or of a URL or a repository of the Hub its address; `None` for `None`.
    """
    if origin is None:
        return None
    if not is_remote(origin):
        return pathlib.PureWindowsPath(origin).name  # splits at both kinds of slashes
    parts = urllib.parse.urlsplit(origin)
    return origin if not parts.netloc else parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
