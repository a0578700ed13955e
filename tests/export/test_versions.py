"""Versions appear whole, are never overwritten, and are on the disk before they have their number."""

import os
import threading

import pytest

from keras_vit.export.server.files import write_server_files
from keras_vit.export.versions import PARTIAL, next_version, versions, write_version


def _write(path, number):
    (path / "variables").mkdir(exist_ok=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        (path / name).write_text(str(number))


def test_numbers_go_on_after_the_highest(tmp_path):
    directory = tmp_path / "models" / "flowers"
    assert (next_version(directory), versions(directory)) == (1, [])
    assert write_version(directory, _write) == directory / "1"
    assert write_version(directory, _write, 9).name == "9"
    (directory / "models.config").write_text("no version")
    (directory / f"{PARTIAL}abc").mkdir()
    assert write_version(directory, _write).name == "10"
    assert versions(directory) == [1, 9, 10]
    assert (directory / "10" / "variables" / "variables.index").read_text() == "10"


def test_a_version_is_never_overwritten(tmp_path):
    write_version(tmp_path, _write, 3)
    with pytest.raises(ValueError, match=r"a version is never overwritten. Received: '.*/3', which exists"):
        write_version(tmp_path, lambda path, number: pytest.fail("written in vain"), 3)
    for number in (0, -1, True, "2"):
        with pytest.raises(ValueError, match="version must be a positive int"):
            write_version(tmp_path, _write, number)
    assert versions(tmp_path) == [3]


def test_nothing_is_written_into_a_version(tmp_path):
    path = write_version(tmp_path, _write)
    before = sorted(path.iterdir())
    for number in (None, 1):
        with pytest.raises(ValueError, match=r"must be no version itself. Received: '.*/1'"):
            write_version(path, _write, number)
    with pytest.raises(ValueError, match="must be no version itself"):
        write_server_files(path, "flowers")
    assert sorted(path.iterdir()) == before


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_what_fails_leaves_nothing(tmp_path, error):
    def fail(path, number):
        _write(path, number)
        raise error

    with pytest.raises(type(error)):
        write_version(tmp_path, fail)
    assert list(tmp_path.iterdir()) == []


def test_everything_is_on_the_disk_before_it_has_its_number(tmp_path, monkeypatch):
    events, fsync, rename = [], os.fsync, os.rename

    def record_sync(handle):
        events.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def record_rename(source, target):
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "rename", record_rename)
    write_version(tmp_path, _write)
    at = events.index("rename")
    (partial,) = {event for event in events[:at] if os.path.basename(event).startswith(PARTIAL)}
    expected = {
        partial,
        *(f"{partial}/{name}" for name in ("saved_model.pb", "variables", "variables/variables.index")),
    }
    assert set(events[:at]) == expected
    assert events[at + 1 :] == [str(tmp_path)]


def test_writers_at_once_get_numbers_of_their_own(tmp_path):
    barrier, written, lock = threading.Barrier(8), [], threading.Lock()

    def write(path, number):
        _write(path, number)
        if not (path / "seen").exists():
            (path / "seen").touch()
            barrier.wait()  # All of them want the same number.

    def run():
        path = write_version(tmp_path, write)
        with lock:
            written.append(path)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(int(path.name) for path in written) == versions(tmp_path) == list(range(1, 9))
    for path in written:
        assert (path / "saved_model.pb").read_text() == path.name
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(PARTIAL)]


def test_a_number_that_is_taken_meanwhile_is_an_error(tmp_path):
    def write(path, number):
        _write(path, number)
        _write((tmp_path / "5").mkdir() or tmp_path / "5", "another's")

    with pytest.raises(ValueError, match="never overwritten"):
        write_version(tmp_path, write, 5)
    assert (tmp_path / "5" / "saved_model.pb").read_text() == "another's"
    assert [path.name for path in tmp_path.iterdir()] == ["5"]


def test_the_folder_is_as_readable_as_others(tmp_path):
    (tmp_path / "other").mkdir()
    path = write_version(tmp_path, _write)
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
