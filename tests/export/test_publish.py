"""Versions for a server: whole or not at all, in rising numbers, back again, and the old ones gone."""

import json
import os
import pathlib
import shutil
import threading

import pytest
import tensorflow as tf
from served_model import write_model
from tensorflow.core.protobuf import saved_model_pb2

import keras_vit_cli
from keras_vit.export import publish_version, replay_warmup, roll_back, write_server_files, write_warmup
from keras_vit.export.retention import remove_old_versions
from keras_vit.export.servable.fingerprint import write_fingerprint
from keras_vit.export.versions import sync as sync_versions
from keras_vit.export.versions import version_folders as versions


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a SavedModel, its warm-up records and metadata."""
    base = tmp_path_factory.mktemp("models") / "colors"
    path = write_model(base / "7")
    write_warmup(path, "colors", (1,))
    (path / "assets.extra" / "keras_vit.json").write_text(json.dumps({"version": 7, "labels": ["a"]}))
    return path


@pytest.fixture
def source(model, tmp_path):
    """A copy that a test may harm; tests tell versions apart by the file `mark`."""
    path = tmp_path / "source"
    shutil.copytree(model, path)
    return path


def _publish(source, served, mark, **options):
    (source / "mark").write_text(mark)
    return publish_version(source, served, **options)


def _marks(served):
    return {number: (path / "mark").read_text() for number, path in versions(served).items()}


def _extra(path):
    return json.loads((path / "assets.extra" / "keras_vit.json").read_text())


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_version_is_published_under_the_next_number(source, tmp_path):
    served = tmp_path / "served"
    assert _publish(source, served, "a") == served / "1"
    assert _publish(source, served, "b") == served / "2"
    assert _names(served) == ["1", "2"]
    assert _marks(served) == {1: "a", 2: "b"}
    assert _extra(served / "2")["version"] == 2
    assert _extra(served / "2")["labels"] == ["a"]
    assert _extra(source)["version"] == 7
    replayed = replay_warmup(served / "2")
    assert len(replayed) == 5
    assert tf.saved_model.load(str(served / "2")).signatures["images"].structured_outputs.keys() == {
        "logits",
        "probabilities",
    }


def test_a_version_is_called_as_its_folder_and_tells_what_is_new_in_it(source, tmp_path, capsys):
    served, arguments = tmp_path / "flowers", ["publish", str(source), "--to", str(tmp_path / "flowers")]
    for _ in range(2):
        assert keras_vit_cli.main(arguments) == 0
        assert capsys.readouterr().err == ""
    assert _extra(served / "2")["name"] == "flowers"
    content = saved_model_pb2.SavedModel.FromString((source / "saved_model.pb").read_bytes())
    signatures = content.meta_graphs[0].signature_def
    signatures["pictures"].CopyFrom(signatures.pop("images"))
    signatures["embeddings"].outputs["more"].CopyFrom(signatures["embeddings"].outputs["embedding"])
    (source / "saved_model.pb").write_bytes(content.SerializeToString())
    write_fingerprint(source)
    (source / "assets.extra" / "keras_vit.json").write_text(json.dumps({"labels": ["b"]}))
    assert keras_vit_cli.main(arguments) == 0
    changed = "signature images was removed, signature embeddings has changed, signature pictures is new, other labels"
    assert capsys.readouterr().err == f"keras_vit: differs from the version before: {changed}\n"


def test_the_highest_version_of_a_folder_is_the_source(model, tmp_path):
    write_server_files(model.parent, "colors")
    publish_version(model.parent, tmp_path / "served")
    # And the server's files come along, where there are none.
    assert _names(tmp_path / "served") == ["1", *_names(model.parent)[1:]]
    assert "models.config" in _names(tmp_path / "served")
    (tmp_path / "served" / "models.config").write_text("# mine\n")
    publish_version(model.parent, tmp_path / "served")
    assert (tmp_path / "served" / "models.config").read_text() == "# mine\n"


def test_a_version_is_never_overwritten(source, tmp_path):
    served = tmp_path / "served"
    assert _publish(source, served, "a", version=5) == served / "5"
    for number in (5, 4):
        with pytest.raises(ValueError, match="a version is never overwritten"):
            _publish(source, served, "b", version=number)
    with pytest.raises(ValueError, match="must be a positive int"):
        _publish(source, served, "b", version=0)
    assert _marks(served) == {5: "a"}
    assert _publish(source, served, "b") == served / "6"


def test_two_that_publish_at_once_get_two_numbers(source, tmp_path, monkeypatch):
    served, barrier, paths = tmp_path / "served", threading.Barrier(2), []
    original, waited = sync_versions, threading.local()

    def sync(path):
        original(path)
        if not getattr(waited, "once", False):
            waited.once = True
            # Both have chosen the number 1 now.
            barrier.wait(20)

    monkeypatch.setattr("keras_vit.export.versions.sync", sync)
    threads = [threading.Thread(target=lambda: paths.append(publish_version(source, served))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in paths) == ["1", "2"]
    assert _names(served) == ["1", "2"]
    assert {number: _extra(path)["version"] for number, path in versions(served).items()} == {1: 1, 2: 2}


@pytest.mark.parametrize(
    "harm", ["graph missing", "graph cut", "variables cut", "graph altered", "variables altered", "no variables"]
)
def test_what_is_not_whole_is_not_published(source, tmp_path, harm):
    served = tmp_path / "served"
    graph, (data,) = source / "saved_model.pb", (source / "variables").glob("variables.data*")
    if harm == "graph missing":
        graph.unlink()
    elif harm == "graph cut":
        graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    elif harm == "graph altered":
        # A letter of a class name: it loads, and nothing but the fingerprint tells.
        graph.write_bytes(graph.read_bytes().replace(b"green", b"greed"))
    elif harm == "variables cut":
        data.write_bytes(data.read_bytes()[:10])
    elif harm == "variables altered":
        content = bytearray(data.read_bytes())
        content[5] ^= 1
        data.write_bytes(content)
    else:
        shutil.rmtree(source / "variables")
    with pytest.raises(ValueError, match=r"a SavedModel must (have|be what its)|variables of a SavedModel must be"):
        publish_version(source, served)
    assert not served.exists() or _names(served) == []


def test_a_copy_that_fails_leaves_nothing(source, tmp_path, monkeypatch):
    served = tmp_path / "served"
    _publish(source, served, "a")

    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_vit.export.versions.sync", fail)
    with pytest.raises(OSError, match="No space left"):
        publish_version(source, served)
    assert _names(served) == ["1"]


def test_files_are_readable_for_the_server_s_user(source, tmp_path):
    os.chmod(source / "saved_model.pb", 0o600)
    os.chmod(source / "variables", 0o700)
    path = publish_version(source, tmp_path / "served")
    modes = {item.stat().st_mode & 0o777 for item in path.rglob("*") if item.is_file()}
    assert modes == {0o644}
    assert {item.stat().st_mode & 0o777 for item in (path, *path.rglob("*")) if item.is_dir()} == {0o755}


def test_the_bytes_are_on_the_disk_before_the_name(source, tmp_path, monkeypatch):
    """Every file and folder of a version is synced before it is renamed, and the folder of the versions after it."""
    events = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda a, b: (events.append(("rename", str(a))), rename(a, b)))
    path = publish_version(source, tmp_path / "served")
    (at,) = [i for i, event in enumerate(events) if event[0] == "rename"]
    partial = events[at][1]
    wanted = {partial, *(f"{partial}/{item.relative_to(path)}" for item in path.rglob("*"))}
    assert set(events[:at]) == wanted
    assert events[at + 1 :] == [str(tmp_path / "served")]


def test_a_rollback_is_the_old_content_under_a_new_number(source, tmp_path):
    served = tmp_path / "served"
    for mark in "abc":
        _publish(source, served, mark)
    assert roll_back(served) == (served / "4", 2)
    assert _marks(served) == {1: "a", 2: "b", 3: "c", 4: "b"}
    assert (_extra(served / "4")["version"], _extra(served / "4")["published"]["content_of"]) == (4, 2)
    # The old one keeps its own metadata, though the files are linked.
    assert (_extra(served / "2")["version"], _extra(served / "2")["published"]["content_of"]) == (2, None)
    assert (served / "4" / "saved_model.pb").samefile(served / "2" / "saved_model.pb")
    # Once more goes further back, not to the one that was left.
    assert roll_back(served) == (served / "5", 1)
    with pytest.raises(ValueError, match="there is no version before 1"):
        roll_back(served)
    for wrong in (1, 5, 9):
        with pytest.raises(ValueError, match=r"must be one of \[2, 3, 4\]"):
            roll_back(served, to=wrong)
    assert roll_back(served, to=3) == (served / "6", 3)
    assert _marks(served)[6] == "c"


def test_a_rollback_to_a_rollback_has_its_content(source, tmp_path):
    served = tmp_path / "served"
    for mark in "ab":
        _publish(source, served, mark)
    roll_back(served)
    _publish(source, served, "d")
    assert roll_back(served) == (served / "5", 3)
    assert _extra(served / "5")["published"]["content_of"] == 1
    with pytest.raises(ValueError, match="no version before 1"):
        roll_back(served)
    with pytest.raises(ValueError, match="must have versions"):
        roll_back(tmp_path / "empty")


def test_a_rollback_copies_where_it_cannot_link(source, tmp_path, monkeypatch):
    served = tmp_path / "served"
    for mark in "ab":
        _publish(source, served, mark)

    def fail(a, b):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    roll_back(served)
    assert _marks(served)[3] == "a"
    assert not (served / "3" / "saved_model.pb").samefile(served / "1" / "saved_model.pb")


def test_old_versions_go_the_oldest_first(source, tmp_path):
    served = tmp_path / "served"
    for mark in "abcd":
        _publish(source, served, mark)
    _publish(source, served, "e", keep=2)
    assert _marks(served) == {4: "d", 5: "e"}
    roll_back(served, keep=2)
    assert _marks(served) == {5: "e", 6: "d"}
    with pytest.raises(ValueError, match="keep must be at least 2"):
        _publish(source, served, "f", keep=1)
    assert _names(served) == ["5", "6"]


def test_versions_that_the_server_s_config_names_stay(source, tmp_path):
    served = tmp_path / "served"
    for mark in "abcdef":
        _publish(source, served, mark)
    (served / "models.config").write_text(
        "model_config_list { config {\n"
        "  model_version_policy { specific { versions: [2, 6] } } # versions: 3\n"
        "  version_labels { key: 'stable' value: 1 }\n"
        "  # version_labels { key: 'canary' value: 4 }\n"
        "} }\n"
    )
    assert remove_old_versions(served, keep=2) == [3, 4]
    assert list(versions(served)) == [1, 2, 5, 6]
    assert remove_old_versions(served, keep=None) == []


def test_a_version_is_out_of_sight_before_its_files_go(source, tmp_path, monkeypatch):
    served = tmp_path / "served"
    for mark in "abc":
        _publish(source, served, mark)
    seen = []
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: seen.append((pathlib.Path(path).name, _names(served))))
    assert remove_old_versions(served, keep=2) == [1]
    ((name, names),) = seen
    assert name.startswith(".deleting-")
    assert names == [name, "2", "3"]
    # What was interrupted is finished the next time.
    monkeypatch.undo()
    assert remove_old_versions(served, keep=2) == []
    assert _names(served) == ["2", "3"]


def test_versions_are_those_a_server_sees(tmp_path):
    for name in ("10", "9", "007", "notes", ".partial-1", "1.5", "²"):
        (tmp_path / name).mkdir()
    assert [path.name for path in versions(tmp_path).values()] == ["007", "9", "10"]
    assert list(versions(tmp_path)) == [7, 9, 10]
    assert versions(tmp_path / "missing") == {}


def test_the_commands(model, tmp_path, capsys):
    served = tmp_path / "served"

    def run(*arguments):
        code = keras_vit_cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    for number in ("1", "2", "3"):
        assert run("publish", model, "--to", served) == (0, f"published: {served / number}\n", "")
    assert run("publish", model, "--to", served, "--version", "3")[::2] == (
        1,
        "keras_vit publish: a version is never overwritten, and a server takes the highest: the number must be above "
        f"all others. Received: version=3, '{served}' has 3\n",
    )
    told = f"published: {served / '4'}, with the content of version 2\n"
    assert run("rollback", served, "--keep", "2") == (0, told, "")
    assert list(versions(served)) == [3, 4]
    assert run("rollback", served, "--to", "3")[1] == f"published: {served / '5'}, with the content of version 3\n"
