"""Downloads from a server on this machine that cuts connections, alters files and is not there."""

import errno
import json
import pathlib
import socket
import subprocess
import sys

import huggingface_hub.utils
import numpy as np
import pytest
from huggingface_hub import constants
from weight_server import COMMIT, serving

from keras_vit.origin import is_remote
from keras_vit.weights.hub import http as module
from keras_vit.weights.hub import http as reachable
from keras_vit.weights.hub.download import download, parse_hub

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype="uint8").tobytes()
FILES = {"timm/small/model.safetensors": CONTENT, "timm/small/config.json": b"{}", "bucket/S_16.npz": CONTENT}


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving(dict(FILES)) as running:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # the pauses between attempts
        yield running


def gets(server):
    return [(path, ranges) for method, path, ranges in server.requests if method == "GET"]


def test_sources_are_told_apart():
    assert [is_remote(s) for s in ("hf://a/b", "hub:a/b", "https://x/y.npz", "a/b.npz")] == [True, True, True, False]
    assert parse_hub("hub:a/b.c-d") == ("a/b.c-d", None, None)
    assert parse_hub("hf://a/b@v1.0/sub/c.bin") == ("a/b", "v1.0", "sub/c.bin")
    assert parse_hub("hf://a/b@refs/pr/1/c.bin") == ("a/b", "refs/pr/1", "c.bin")
    with pytest.raises(ValueError, match=r"hub:organization/repository.*Received: 'hub:alone'"):
        parse_hub("hub:alone")


def test_hub_file_comes_with_its_config_and_is_fetched_once(server):
    path = download("hub:timm/small/model.safetensors")
    assert path.read_bytes() == CONTENT
    assert path.with_name("config.json").read_bytes() == b"{}"
    assert path.parent.name == COMMIT
    before = len(gets(server))
    assert download("hf://timm/small") == path
    assert len(gets(server)) == before


def test_a_file_of_the_cache_alone_asks_nobody(server):
    path = download("hub:timm/small", with_config=False)
    assert not path.with_name("config.json").exists()
    before = len(server.requests)
    assert download("hub:timm/small", with_config=False) == path
    assert len(server.requests) == before


def test_a_description_that_does_not_come_is_an_error(server):
    server.failing = "config.json"
    with pytest.raises(ConnectionError, match=r"timm/small/config.json"):
        download("hub:timm/small")


def test_two_urls_with_one_name_are_two_files(server):
    server.files["other/S_16.npz"] = CONTENT[::-1]
    assert download(f"{server.url}/bucket/S_16.npz").read_bytes() == CONTENT
    assert download(f"{server.url}/other/S_16.npz?token=1").read_bytes() == CONTENT[::-1]
    with pytest.raises(ValueError, match="must end in a file name"):
        download(f"{server.url}/")


def test_a_home_that_cannot_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"KERAS_HOME must be a folder that can be written"):
        download(f"{server.url}/bucket/S_16.npz")


def test_url_is_fetched_once(server):
    url = f"{server.url}/bucket/S_16.npz"
    path = download(url)
    assert path.read_bytes() == CONTENT
    assert download(url) == path
    assert gets(server) == [("/bucket/S_16.npz", None)]
    assert sorted(file.name for file in path.parent.iterdir()) == ["S_16.npz", "S_16.npz.lock"]


def test_url_goes_on_where_the_connection_was_cut(server):
    server.cuts = [100_000, 50_000]
    assert download(f"{server.url}/bucket/S_16.npz").read_bytes() == CONTENT
    assert [ranges for _, ranges in gets(server)] == [None, "bytes=100000-", "bytes=150000-"]


def test_hub_file_survives_a_cut_connection(server):
    server.cuts = [100_000]
    assert download("hub:timm/small", with_config=False).read_bytes() == CONTENT
    assert len(gets(server)) == 2


def test_hub_file_that_is_cut_too_often(server):
    server.cuts = [1000] * 100
    with pytest.raises(ConnectionError, match=r"timm/small/model.safetensors failed 5 times"):
        download("hub:timm/small/model.safetensors")
    server.cuts = []
    assert download("hub:timm/small/model.safetensors").read_bytes() == CONTENT


def test_url_that_is_cut_too_often_keeps_its_part_for_the_next_call(server):
    server.cuts = [10_000] * 5
    with pytest.raises(ConnectionError, match=r"failed 5 times.*resumes at 50,000 bytes"):
        download(f"{server.url}/bucket/S_16.npz")
    assert download(f"{server.url}/bucket/S_16.npz").read_bytes() == CONTENT
    assert gets(server)[-1][1] == "bytes=50000-"


def test_a_part_of_another_version_is_not_continued(server):
    server.cuts = [10_000] * 5
    with pytest.raises(ConnectionError):
        download(f"{server.url}/bucket/S_16.npz")
    server.files["bucket/S_16.npz"] = CONTENT[::-1]
    assert download(f"{server.url}/bucket/S_16.npz").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("source", ["hub:timm/small/model.safetensors", "{url}/bucket/S_16.npz"])
def test_altered_file_raises_and_is_removed(server, source, tmp_path):
    server.altered = True
    source = source.format(url=server.url)
    with pytest.raises(ValueError, match=r"hash of its server; it was removed"):
        download(source)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size == len(CONTENT)] == []
    server.altered = False
    assert download(source).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "source", ["hub:timm/small/other.bin", "hub:timm/none", "{url}/bucket/none.npz", "hub:timm/small@v9/x.bin"]
)
def test_missing_file(server, source):
    with pytest.raises(FileNotFoundError, match=r"none|other.bin|x.bin"):
        download(source.format(url=server.url))


def test_refused_url(server):
    server.status = 403
    with pytest.raises(PermissionError, match=r"is not public \(HTTP 403\)"):
        download(f"{server.url}/bucket/S_16.npz")
    server.status = 503
    with pytest.raises(ConnectionError, match=r"failed 5 times.*HTTP 503"):
        download(f"{server.url}/bucket/S_16.npz")


def test_offline_mode_uses_the_cache_alone(server, monkeypatch):
    cached = [download("hub:timm/small"), download(f"{server.url}/bucket/S_16.npz")]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    getattr(huggingface_hub.utils, "reset_sessions", lambda: None)()  # older versions ask once a session
    before = len(server.requests)
    assert [download("hub:timm/small"), download(f"{server.url}/bucket/S_16.npz")] == cached
    assert len(server.requests) == before
    for source in ("hub:timm/other", f"{server.url}/bucket/other.npz"):
        with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE"):
            download(source)


def test_refusals_that_stay_are_not_repeated(server):
    server.status = 400
    with pytest.raises(ConnectionError, match=r"was rejected \(HTTP 400\)"):
        download(f"{server.url}/bucket/S_16.npz")
    assert len(gets(server)) == 1


def test_nobody_there(server, monkeypatch):
    """Who is offline waits for no more than a second attempt; what is in the cache is used."""
    cached = download("hub:timm/small")
    server.shutdown()
    server.server_close()
    reachable._attempts.clear()
    attempts, pauses, connect = [], [], socket.create_connection
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr("socket.create_connection", lambda *where: attempts.append(where) or connect(*where))
    assert download("hub:timm/small") == cached
    for source in ("hub:timm/other", f"{server.url}/bucket/S_16.npz"):
        with pytest.raises(ConnectionError, match=r"127.0.0.1 cannot be reached .*Check the network"):
            download(source)
    assert len(attempts) == 2
    assert sum(pauses) < 1


@pytest.mark.parametrize(
    ("url", "proxies", "expected"),
    [
        ("https://huggingface.co", {}, ("huggingface.co", 443)),
        ("http://a:8080/b.npz", {}, ("a", 8080)),
        ("https://huggingface.co", {"https": "http://proxy:3128"}, ("proxy", 3128)),
        ("https://huggingface.co", {"https": "proxy:3128"}, ("proxy", 3128)),
        ("https://huggingface.co", {"all": "socks5h://proxy"}, ("proxy", 1080)),
        ("http://a/b.npz", {"https": "http://proxy:3128"}, ("a", 80)),
        ("https://a/b.npz", {"https": "http://proxy:port"}, None),
    ],
)
def test_a_proxy_is_what_must_be_reached(url, proxies, expected, monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", lambda: proxies)
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda host: False)
    assert reachable._address(url) == expected


def test_full_disk(server, monkeypatch):
    class Full:
        name = "S_16.npz.part"

        def write(self, chunk):
            raise OSError(errno.ENOSPC, "No space left on device")

    write = module._write
    monkeypatch.setattr(module, "_write", lambda file, chunk: write(Full(), chunk))
    with pytest.raises(OSError, match=r"cannot be written: No space left on device: 'S_16.npz.part'") as caught:
        download(f"{server.url}/bucket/S_16.npz")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.setattr(module, "_write", write)
    assert download(f"{server.url}/bucket/S_16.npz").read_bytes() == CONTENT


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="kills a process of Linux")
def test_a_killed_download_leaves_nothing_under_its_name(server, tmp_path):
    server.cuts = [200_000]
    code = (
        "import os, sys, keras_vit.weights.hub.http as d\n"
        "original = d._write\n"
        "def write(file, chunk):\n"
        "    original(file, chunk)\n"
        "    os.kill(os.getpid(), 9)\n"
        "d._write = write\n"
        "d.fetch_url(sys.argv[1])\n"
    )
    url = f"{server.url}/bucket/S_16.npz"
    killed = subprocess.run([sys.executable, "-c", code, url], capture_output=True, check=False)
    assert killed.returncode == -9
    assert not list(tmp_path.rglob("S_16.npz"))
    assert download(url).read_bytes() == CONTENT
    assert gets(server)[-1][1] == "bytes=200000-"


def test_a_repository_without_safetensors_gives_what_it_has(server):
    index = json.dumps({"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}).encode()
    parts = {f"me/parts/pytorch_model-{number}.bin": CONTENT[:number] for number in (1, 2)}
    server.files |= {"me/parts/pytorch_model.bin.index.json": index, **parts, "me/parts/config.json": b"{}"}
    server.files |= {"me/bin/pytorch_model.bin": CONTENT, "me/none/README.md": b"nothing"}
    path = download("hub:me/parts")
    assert path.name == "pytorch_model.bin.index.json"
    assert sorted(file.name for file in path.parent.iterdir()) == [
        *("config.json", "pytorch_model-1.bin", "pytorch_model-2.bin", "pytorch_model.bin.index.json"),
    ]
    assert download("hub:me/bin").read_bytes() == CONTENT
    with pytest.raises(FileNotFoundError, match=r"the Hub has no me/none/model\.safetensors"):
        download("hub:me/none")
    asked = len(server.requests)
    with pytest.raises(FileNotFoundError, match=r"nobody/nothing/model\.safetensors"):
        download("hub:nobody/nothing")
    assert len(server.requests) - asked <= 2
