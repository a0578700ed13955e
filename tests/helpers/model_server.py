"""The real `tensorflow_model_server`, where the machine has one: on PATH, or named by TF_SERVING_BIN."""

import contextlib
import os
import shutil
import socket
import subprocess

from keras_vit.export.server.files import server_flags, write_server_files

BINARY = os.environ.get("TF_SERVING_BIN") or shutil.which("tensorflow_model_server")
WHY_NOT = "tensorflow_model_server is not on PATH and TF_SERVING_BIN is not set"


def free_ports(count):
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


@contextlib.contextmanager
def model_server(base_path, name, batch_sizes=(1, 2, 4), log=None):
    """Serves a folder of versions, with the files of `write_server_files`; gives `host:port` of REST and of gRPC."""
    write_server_files(base_path, name, batch_sizes, base_path=str(base_path), batch_timeout_micros=200_000)
    rest, rpc = free_ports(2)
    flags = [flag for flag in server_flags(str(base_path), batch_sizes, cpus=2) if "port=" not in flag]
    command = [BINARY, f"--port={rpc}", f"--rest_api_port={rest}", *flags]
    with open(log or os.devnull, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield f"127.0.0.1:{rest}", f"127.0.0.1:{rpc}"
        finally:
            process.kill()
            process.wait()
