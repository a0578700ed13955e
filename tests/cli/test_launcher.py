"""How a command starts: without TensorFlow's chatter, and without hiding what is no chatter."""

import os
import re
import signal
import subprocess
import sys

import pytest
from PIL import Image
from tiny import tiny_vit

import keras_vit_cli

CHATTER = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1796069573.619198    8101 port.cc:153] oneDNN custom operations are on. You may see slightly different \
numerical results. To turn them off, set the environment variable `TF_ENABLE_ONEDNN_OPTS=0`.
I0000 00:00:1796069573.619582    8101 cudart_stub.cc:31] Could not find cuda drivers on your machine.
2024-05-01 10:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is optimized.
To enable the following instructions: AVX2 AVX512F FMA, in other operations, rebuild TensorFlow.
E0000 00:00:1796069573.619582    8101 cuda_fft.cc:467] Unable to register cuFFT factory: it was registered before
W0000 00:00:1796069573.619582    8101 computation_placer.cc:177] computation placer already registered.
E0000 00:00:1796073836.253709    8269 util.cc:131] oneDNN supports DT_UINT8 only on platforms with AVX-512.
E0000 00:00:1796076038.582834   27236 jpeg_mem.cc:331] Premature end of JPEG data. Stopped at line 46/120
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
"""
WORDS = """\
E0000 00:00:1796069573.619582    8101 gpu.cc:1] CUDA_ERROR_OUT_OF_MEMORY: out of memory
W0000 00:00:1796069573.619582    8101 something.cc:1] A warning
Illegal instruction: this TensorFlow needs AVX
Traceback (most recent call last):
"""
ABSENT = "E0000 00:00:1796069606.097238    8210 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error\n"


def _fresh():
    """The environment of a machine on which nobody has silenced TensorFlow."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}


def _quiet(text, end="", env=None):
    """What a process leaves on standard error that writes `text` while TensorFlow is imported, and then runs `end`."""
    script = (
        "import os, keras_vit_cli\n"
        f"with keras_vit_cli._quiet_tensorflow():\n    os.write(2, {text.encode()!r})\n    {end}"
    )
    return subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, env=env or _fresh())


def test_chatter_is_left_out_and_errors_are_not():
    assert _quiet(CHATTER + WORDS).stderr == WORDS
    # Who asks for all messages gets them.
    assert _quiet(CHATTER + WORDS, env={**_fresh(), "TF_CPP_MIN_LOG_LEVEL": "0"}).stderr == CHATTER + WORDS


def test_what_is_said_before_a_crash_is_not_lost():
    crashed = _quiet(CHATTER + WORDS, "os.abort()")
    assert crashed.returncode == -signal.SIGABRT
    assert crashed.stderr == WORDS


def test_what_python_says_is_not_filtered():
    said = _quiet("", "import sys; print(sys.stderr.isatty(), 'I0000 00:00:17 of Python', file=sys.stderr)")
    assert said.stderr == "False I0000 00:00:17 of Python\n"


def test_a_missing_driver_is_an_error_where_there_is_a_gpu():
    noise = keras_vit_cli._NOISE
    assert not re.match(noise, ABSENT.encode())
    assert re.match(noise + b"|" + keras_vit_cli._ABSENT, ABSENT.encode())


@pytest.mark.parametrize("module", ["keras_vit", "keras_vit_cli"])
def test_a_command_says_nothing_but_its_own(module, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    tiny_vit().save(tmp_path / "model.keras")
    command = [sys.executable, "-m", module, "predict", tmp_path / "photo.jpg", "--model", tmp_path / "model.keras"]
    answer = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=_fresh())
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    assert answer.stdout.startswith(f"{tmp_path / 'photo.jpg'}: ")
