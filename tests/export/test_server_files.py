"""The files for a server: every one parsed as its reader parses it, and what they must agree on."""

import json
import re
import subprocess

import pytest
import yaml
from google.protobuf import text_format
from model_server import free_ports
from served_model import write_model
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig
from tf_serving import ServedModel, rest_server

from keras_vit.export import write_server_files
from keras_vit.export.server.files import BASE_MIB, FILES, server_flags
from keras_vit.export.server.protos import BatchingParameters, MonitoringConfig
from keras_vit.image_ops.decode import BYTES_PER_PIXEL, MAX_PIXELS, PARALLEL
from keras_vit_client import RestClient

SIZES = (1, 2, 4, 16)


@pytest.fixture
def folder(tmp_path):
    """The files of a model with an awkward name."""
    path = tmp_path / "Flowers_v2"
    write_server_files(path, batch_sizes=SIZES, cpus=3, memory_mib=1500, batch_timeout_micros=700)
    return path


def _kubernetes(folder):
    return {item["kind"]: item for item in yaml.safe_load_all((folder / "kubernetes.yaml").read_text())}


def _container(folder):
    (container,) = _kubernetes(folder)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return container


def test_the_models_config_serves_the_highest_version(folder):
    config = text_format.Parse((folder / "models.config").read_text(), ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("Flowers_v2", "/models/Flowers_v2", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1
    assert not model.version_labels


def test_the_lines_for_a_canary_are_right_too(folder):
    text = (folder / "models.config").read_text()
    text = re.sub(r"^ *model_version_policy \{ latest.*\n", "", text, flags=re.MULTILINE)
    text, count = re.subn(r"^ *# (model_version_policy|version_labels)", r"\1", text, flags=re.MULTILINE)
    assert count == 3
    (model,) = text_format.Parse(text, ModelServerConfig()).model_config_list.config
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}


def test_the_batching_config_has_the_sizes(folder):
    config = text_format.Parse((folder / "batching.config").read_text(), BatchingParameters())
    assert list(config.allowed_batch_sizes) == list(SIZES)
    assert config.max_batch_size.value == SIZES[-1]
    assert config.batch_timeout_micros.value == 700
    assert config.num_batch_threads.value == 3
    assert config.max_enqueued_batches.value >= config.num_batch_threads.value
    assert not config.pad_variable_length_inputs


def test_the_monitoring_config_is_on(folder):
    config = text_format.Parse((folder / "monitoring.config").read_text(), MonitoringConfig())
    assert config.prometheus_config.enable
    annotations = _kubernetes(folder)["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == config.prometheus_config.path


def test_a_wrong_field_would_be_noticed():
    """The messages made by hand are as strict as the server's."""
    for text, message in (("max_batch { value: 1 }", BatchingParameters), ("enable: true", MonitoringConfig)):
        with pytest.raises(text_format.ParseError):
            text_format.Parse(text, message())


def _check_flags(flags, mounted_at):
    names = [flag.split("=")[0] for flag in flags]
    assert len(set(names)) == len(names)
    assert {"--enable_batching=true", "--port=8500", "--rest_api_port=8501"} <= set(flags)
    files = [flag.split("=")[1] for flag in flags if "_file=" in flag]
    assert sorted(files) == [f"{mounted_at}/{name}.config" for name in ("batching", "models", "monitoring")]


def test_the_compose_file_starts_the_server(folder):
    content = yaml.safe_load((folder / "compose.yaml").read_text())
    assert set(content) == {"name", "services"}
    assert content["name"] == "flowers-v2"
    (service,) = content["services"].values()
    _check_flags(service["command"], "/models/Flowers_v2")
    assert service["entrypoint"] == ["tensorflow_model_server"]
    assert service["init"] is True
    assert service["volumes"] == [{"type": "bind", "source": ".", "target": "/models/Flowers_v2", "read_only": True}]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["deploy"]["resources"]["limits"] == {"cpus": "3", "memory": "1500M"}
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True


def test_the_health_check_asks_for_the_status(folder, tmp_path):
    """The command of the compose file, run by bash against a server, with its port."""
    (service,) = yaml.safe_load((folder / "compose.yaml").read_text())["services"].values()
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    write_model(tmp_path / "models" / "1")
    model = ServedModel(tmp_path / "models", "Flowers_v2")

    def healthy(port):
        assert "8501" in command[-1]
        parts = [part.replace("8501", str(port)) for part in command]
        return subprocess.run(parts, timeout=20, capture_output=True).returncode == 0

    with rest_server(model) as address:
        port = address.rpartition(":")[2]
        assert healthy(port)
        model.state = "LOADING"
        assert not healthy(port)
        # Words that a status may hold in other places.
        model.error = "UNAVAILABLE: nothing is AVAILABLE"
        assert not healthy(port)
    assert not healthy(free_ports(1)[0])


def test_the_manifest_s_objects_belong_together(folder):
    objects = _kubernetes(folder)
    versions = {kind: item["apiVersion"] for kind, item in objects.items()}
    assert versions == {
        "Deployment": "apps/v1",
        "Service": "v1",
        "PodDisruptionBudget": "policy/v1",
        "NetworkPolicy": "networking.k8s.io/v1",
    }
    names = {item["metadata"]["name"] for item in objects.values()}
    assert names == {"flowers-v2"}
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"] == labels
    selectors = [
        objects["Deployment"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"],
        objects["NetworkPolicy"]["spec"]["podSelector"],
    ]
    assert all(selector == {"matchLabels": labels} for selector in selectors)
    ports = {port["name"]: port["containerPort"] for port in _container(folder)["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    assert {port["targetPort"]: port["port"] for port in objects["Service"]["spec"]["ports"]} == ports


def test_the_manifest_s_container_is_as_the_server_needs_it(folder):
    container, pod = _container(folder), _kubernetes(folder)["Deployment"]["spec"]["template"]["spec"]
    assert container["command"] == ["tensorflow_model_server"]
    _check_flags(container["args"], "/models/Flowers_v2")
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/v1/models/Flowers_v2", "port": "rest"}
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["models"] == {"name": "models", "mountPath": "/models/Flowers_v2", "readOnly": True}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    assert container["resources"]["requests"] == {"cpu": "3", "memory": "1500Mi"}
    assert container["resources"]["limits"] == {"memory": "1500Mi"}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    # Requests of the longest allowed time end before the server is told to.
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    (longest,) = [int(flag.split("=")[1]) / 1000 for flag in container["args"] if "rest_api_timeout" in flag]
    assert longest < pause < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(
    ("name", "service"), [("vit_digits", "vit-digits"), ("1", "model-1"), ("A" * 70, "a" * 50), ("a.b-", "a-b")]
)
def test_names_fit_kubernetes(tmp_path, name, service):
    write_server_files(tmp_path, name)
    assert _kubernetes(tmp_path)["Service"]["metadata"]["name"] == service
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", service)


def test_files_that_one_has_edited_stay(folder):
    edited = folder / "models.config"
    edited.write_text("# mine\n")
    (folder / "compose.yaml").unlink()
    assert write_server_files(folder) == [folder / "compose.yaml"]
    assert edited.read_text() == "# mine\n"
    assert write_server_files(folder, overwrite=True) == [folder / name for name in FILES]
    assert "model_config_list" in edited.read_text()
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a/b"}, "name must be of letters"),
        ({"name": 'a" x'}, "name must be of letters"),
        ({"name": ""}, "name must be of letters"),
        ({"base_path": "models"}, "base_path must be an absolute path"),
        ({"base_path": "/models/a b"}, "base_path must be an absolute path"),
        ({"batch_sizes": (4, 2)}, "batch_sizes must be increasing"),
        ({"cpus": 0}, "cpus must be a positive int"),
        ({"memory_mib": 1.5}, "memory_mib must be a positive int"),
        ({"batch_timeout_micros": -1}, "batch_timeout_micros must be"),
    ],
)
def test_what_no_server_would_take_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_server_files(tmp_path / "flowers", **options)
    assert not (tmp_path / "flowers").exists()


def _limit(folder, **options):
    write_server_files(folder, "flowers", overwrite=True, **options)
    (service,) = yaml.safe_load((folder / "compose.yaml").read_text())["services"].values()
    memory = service["deploy"]["resources"]["limits"]["memory"]
    assert _container(folder)["resources"]["limits"]["memory"] == f"{memory}i"
    return int(memory.removesuffix("M"))


def test_the_memory_is_enough_for_the_largest_images(tmp_path):
    """Of every batch that is computed; for the weights twice, and once more where each batch unpacks them."""
    for cpus in (1, 2, 8):
        images = PARALLEL * cpus * BYTES_PER_PIXEL * MAX_PIXELS / 2**20
        assert 0 <= _limit(tmp_path, cpus=cpus) - BASE_MIB - images < 256
    version, weights = write_model(tmp_path / "1"), 300 * 2**20
    with open(version / "variables" / "variables.data-00000-of-00001", "r+b") as file:
        file.truncate(weights)
    assert 600 <= _limit(tmp_path) - BASE_MIB - PARALLEL * 2 * BYTES_PER_PIXEL * MAX_PIXELS / 2**20 < 600 + 257
    (version / "assets.extra").mkdir()
    told = {"options": {"weights": "int8", "max_pixels": 2**20}}
    (version / "assets.extra" / "keras_vit.json").write_text(json.dumps(told))
    assert 3000 <= _limit(tmp_path) - BASE_MIB - PARALLEL * 2 * BYTES_PER_PIXEL < 3000 + 257
    assert _limit(tmp_path, memory_mib=1500) == 1500


def test_clients_send_no_more_than_the_server_takes(tmp_path):
    """Both by default."""
    write_server_files(tmp_path, "flowers")
    config = text_format.Parse((tmp_path / "batching.config").read_text(), BatchingParameters())
    with RestClient("http://localhost:8501", "flowers") as client:
        assert client.max_batch_size == config.max_batch_size.value


def test_as_many_requests_wait_as_two_batches_hold():
    flags = server_flags("/models/m", (1, 64), 2)
    assert {"--rest_api_num_threads=128", "--grpc_max_threads=128"} <= set(flags)
