"""The scripts and the manifest of docs/distributed, run with stand-ins for the cluster's commands."""

import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

from keras_vit.config.files import load_recipe
from keras_vit_cli import _parser

FOLDER = pathlib.Path(__file__).parents[2] / "docs" / "distributed"
PAGE = FOLDER.parent / "distributed.md"
# Tells what it was called with; ends with the code that the test wants of a worker.
_KERAS_VIT = """#!/bin/bash
echo "$TF_CONFIG" >> "$LOG/configs"
printf "%s\\n" "$*" >> "$LOG/calls"
codes=($CODES)
exit "${codes[${SLURM_PROCID:-0}]}"
"""
# Ends with the highest of the codes, as the real one.
_SRUN = """#!/bin/bash
shift
most=0
for SLURM_PROCID in 0 1; do
  export SLURM_PROCID
  "$@"
  code=$?
  if [ $code -gt $most ]; then most=$code; fi
done
exit $most
"""
_SCONTROL = '#!/bin/sh\nif [ "$1" = show ]; then echo "alpha\nbeta"; else echo "$*" >> "$LOG/scontrol"; fi\n'


@pytest.fixture
def cluster(tmp_path):
    """Runs a script among the stand-ins; gives its exit code and what they were called with."""
    for name, text in (("keras_vit", _KERAS_VIT), ("srun", _SRUN), ("scontrol", _SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(*command, codes="0 0", **environment):
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "LOG": str(tmp_path), "CODES": codes, **environment}
        return subprocess.run(command, cwd=FOLDER, env=environment).returncode

    run.read = lambda name: (tmp_path / name).read_text().splitlines() if (tmp_path / name).exists() else []
    return run


def _check(configs, workers):
    configs = [json.loads(config) for config in configs]
    assert [config["task"] for config in configs] == [{"type": "worker", "index": i} for i in range(len(configs))]
    assert all(config["cluster"] == {"worker": workers} for config in configs)


def _recipe_of(call):
    """The options of `keras_vit train`, which the real command line must understand, of a recipe that there is."""
    options = _parser().parse_args(call.split())
    recipe = load_recipe(options.recipe, options.overrides)
    assert recipe.distribution.name == "multi_worker"
    return options


def test_two_hosts_name_each_other(cluster):
    for index in "01":
        assert cluster("sh", "two_hosts.sh", index, "vit_digits", "--seed", "1", HOSTS="a:1 b:2") == 0
    _check(cluster.read("configs"), ["a:1", "b:2"])
    calls = [_recipe_of(call) for call in cluster.read("calls")]
    assert {load_recipe(options.recipe, options.overrides).training.seed for options in calls} == {1}


@pytest.mark.parametrize(
    ("codes", "restarts", "ends"),
    [
        ("0 0", 0, 0),
        ("75 75", 0, "requeued"),
        ("75 137", 0, "requeued"),  # one was killed
        ("1 75", 0, 100),  # one has failed, without which the other cannot go on
        ("75 75", 49, "requeued"),
        ("75 75", 50, 75),
    ],
)
def test_a_slurm_job_goes_into_the_queue_again_where_it_was_preempted(cluster, codes, restarts, ends):
    job = {"SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "nodes[1-2]", "SLURM_RESTART_COUNT": str(restarts)}
    returned = cluster("bash", "slurm.sh", "vit_digits", "--out", "/shared/run", codes=codes, **job)
    assert returned == (0 if ends == "requeued" else ends)
    assert cluster.read("scontrol") == (["requeue 41"] if ends == "requeued" else [])
    _check(cluster.read("configs"), ["alpha:20041", "beta:20041"])
    assert [_recipe_of(call).out for call in cluster.read("calls")] == ["/shared/run"] * 2


def test_the_manifest_starts_four_workers_that_share_their_folders():
    job = yaml.safe_load((FOLDER / "tfjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    replicas = job["spec"]["tfReplicaSpecs"]
    assert {kind: spec["replicas"] for kind, spec in replicas.items()} == {"Chief": 1, "Worker": 3}
    for spec in replicas.values():
        assert spec["restartPolicy"] == "OnFailure"
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        assert container["name"] == "tensorflow"
        program, *arguments = container["command"]
        assert program == "keras_vit"
        options = _recipe_of(" ".join(arguments))
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
        assert any(options.out.startswith(path) for path in mounts)


def test_the_page_links_what_there_is():
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target


def test_a_shell_can_read_all_that_is_one_s():
    scripts = {path.name: path.read_text() for path in FOLDER.glob("*.sh")}
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert set(scripts) == {"slurm.sh", "two_hosts.sh"}
    assert blocks
    for text in [*scripts.values(), *blocks]:
        answer = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert (answer.returncode, answer.stderr) == (0, ""), text


def test_the_commands_of_the_page_name_recipes_and_settings_that_there_are():
    page = PAGE.read_text()
    commands = re.findall(r"`keras_vit (train [^`]+)`", page)
    scripts = re.findall(r"^HOSTS=.* sh two_hosts\.sh \d ([^#\n]+)", page, re.MULTILINE)
    assert len(commands) == 1
    assert len(scripts) == 2
    for command in [*commands, *(f"train {arguments}" for arguments in scripts)]:
        options = _parser().parse_args(command.split())
        load_recipe(options.recipe, options.overrides)
    settings = re.findall(r"--set ([a-z_.]+=[^`\s]+)", page)
    assert len(settings) >= 3
    for setting in settings:
        load_recipe("vit_digits", [setting.replace("...", "auto")])


def test_the_overhead_that_the_page_tells_is_the_recorded_one():
    record = json.loads((FOLDER.parents[1] / "benchmarks" / "results" / "scaling.json").read_text())
    ratios = [row["step_ratio"] for row in record["rows"] if row["contender"] == "1 device, mirrored"]
    assert len(ratios) == 2
    text = PAGE.read_text().partition("## How it scales")[2].partition("<!-- scaling -->")[0]
    assert "{:.3f} and {:.3f} of the step".format(*ratios) in text
