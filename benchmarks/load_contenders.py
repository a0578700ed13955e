"""Loads or writes the files of a model in one fresh process. Imported by a worker only, after its packages."""

import contextlib
import os
import pathlib
import threading

from worker import memory, timed

CHUNK = 1 << 24  # bytes
INTERVAL = 0.001  # seconds between two looks at the memory


def write_safetensors(name, files):
    """Random weights of a model as timm publishes them: bare arrays, nothing that describes them."""
    import keras_vit
    from keras_vit.weights.files.checkpoint import open_checkpoint, write_checkpoint

    path = files["safetensors"]
    keras_vit.save_weights(keras_vit.create_model(name), path, layout="timm")
    write_checkpoint(path, open_checkpoint(path))
    return {"bytes": os.path.getsize(path)}


def write_preset(name, files):
    """The same model of KerasHub as a preset."""
    from keras_vit.models import VARIANTS

    config = VARIANTS[name].get_config()
    classifier = _kerashub_swin(config) if "window_size" in config else _kerashub_vit(config)
    classifier.save_to_preset(files["preset"])
    return {"bytes": sum(path.stat().st_size for path in pathlib.Path(files["preset"]).iterdir())}


def _kerashub_vit(config):
    import keras_hub

    names = ("num_layers", "num_heads", "hidden_dim", "mlp_dim", "layer_norm_epsilon")
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(*config["image_size"], config["num_channels"]),
        patch_size=tuple(config["patch_size"]),
        **{name: config[name] for name in names},
    )
    return keras_hub.models.ViTImageClassifier(backbone, config["num_classes"])


def _kerashub_swin(config):
    import keras_hub

    backbone = keras_hub.models.SwinTransformerBackbone(
        image_shape=(*config["image_size"], config["num_channels"]),
        patch_size=config["patch_size"][0],
        window_size=config["window_size"][0],
        **{name: config[name] for name in ("embed_dim", "depths", "num_heads", "mlp_ratio")},
    )
    return keras_hub.models.SwinTransformerImageClassifier(backbone, config["num_classes"])


def from_checkpoint(name, files):
    """keras_vit, the architecture read off the file."""
    import keras_vit

    return keras_vit.from_checkpoint(files["safetensors"])


def create_model(name, files):
    """keras_vit, the architecture by its name."""
    import keras_vit

    return keras_vit.create_model(name, weights=files["safetensors"])


def timm_create_model(name, files):
    """timm, from a file as it does from its cache for `pretrained=True`."""
    import timm

    return timm.create_model(name, checkpoint_path=files["safetensors"])


def from_preset(name, files):
    """KerasHub, backbone and head."""
    import keras_hub

    return keras_hub.models.ImageClassifier.from_preset(files["preset"])


def create_and_load(how, name, files, watch):
    """Creates and fills a model, once.

    Args:
        how: str, a function of this file.
        name: str. The model's name.
        files: dict with the paths `safetensors` and `preset`.
        watch: bool. Measure memory instead of time: looking at it takes time itself.

    Returns:
        A dict with `parameters`, and `seconds` or `memory`, in MB.
    """
    _warm(files)
    models = []
    with _peak_of_anonymous_memory() if watch else contextlib.nullcontext() as peak:
        seconds = timed(lambda: models.append(globals()[how](name, files)))
    count = getattr(models[0], "count_params", None)
    parameters = count() if count else sum(parameter.numel() for parameter in models[0].parameters())
    return {"parameters": parameters, **({"memory": peak[0]} if watch else {"seconds": seconds})}


def fill(name, files):
    """Seconds of filling a model that exists, of reading its file whole, and of reading it into an existing buffer."""
    import keras_vit

    model, path = keras_vit.create_model(name), pathlib.Path(files["safetensors"])
    _warm(files)
    results = {"read": timed(path.read_bytes)}
    results["read_into"] = _time_of_reading_into_a_buffer(path)
    return {**results, "fill": timed(lambda: keras_vit.load_weights(model, path))}


def _time_of_reading_into_a_buffer(path):
    buffer = memoryview(bytearray(path.stat().st_size))

    def read():
        done = 0
        while done < len(buffer):  # one call of the system reads 2 GB at most
            done += file.readinto(buffer[done:])

    with open(path, "rb", buffering=0) as file:
        return timed(read)


def _warm(files):
    """Reads the files once, so that they lie in memory."""
    for name in files.values():
        path = pathlib.Path(name)
        for part in path.iterdir() if path.is_dir() else [path] if path.exists() else []:
            with open(part, "rb", buffering=0) as file:
                while file.read(CHUNK):
                    pass


@contextlib.contextmanager
def _peak_of_anonymous_memory():
    """A list that gets the most anonymous memory inside, in MB above that on entering. Linux only."""
    before, peak, done = memory("RssAnon"), [0.0], threading.Event()

    def look():
        while not done.wait(INTERVAL):
            peak[0] = max(peak[0], memory("RssAnon") - before)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak[0] = max(peak[0], memory("RssAnon") - before)
