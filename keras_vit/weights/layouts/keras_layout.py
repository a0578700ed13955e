"""Layout of `.keras` and `.weights.h5` files: variables under the names of their layers."""

import dataclasses

from keras_vit.models import ViTConfig
from keras_vit.weights.config import safetensors_metadata
from keras_vit.weights.layouts.base import HEADS, Layout, rule
from keras_vit.weights.layouts.subtrees import behind

_METADATA = "keras_vit>Metadata"


@dataclasses.dataclass(frozen=True)
class KerasLayout(Layout):
    """Keys of a `.keras` or `.weights.h5` file: a layer's name, then the number of the variable in it, or its name.

    Args:
        keys: of the file.
        source: config of the model that was saved, or `None` if the file does not state it.
        grid_size: `(h, w)`, of the table of positions, or `None`.
        paths: of the variables of the model that is filled, in its order.
    """

    keys: frozenset
    source: object = None
    grid_size: tuple | None = None
    paths: tuple = ()
    name = "keras"

    @property
    def config_class(self):
        """The class of the config."""
        return ViTConfig if self.source is None else type(self.source)

    @property
    def patch_size(self):
        """`(h, w)` of the patches of the kernel in the file, or `None`."""
        return None if self.source is None else self.source.patch_size

    def bind(self, paths):
        """The layout for the variables of a model."""
        return dataclasses.replace(self, paths=tuple(paths))

    def table(self, config):
        rules, counts = [], {}
        for path in self.paths:
            layer = path.rpartition("/")[0]
            number = counts[layer] = counts.get(layer, -1) + 1
            rules.append(rule(path, path if path in self.keys else f"{layer}/{number}"))
        # Heads of the file that the model lacks.
        missing = [head for head in HEADS if not any(path.startswith(head) for path in self.paths)]
        for head in missing:
            rules += [rule(f"{head}kernel", f"{head}0"), rule(f"{head}bias", f"{head}1")]
        return rules

    def count_classes(self, shapes):
        """The classes of the head in the file, 0 without one."""
        return shapes["head/0"][-1] if "head/0" in shapes else 0

    def infer(self, shapes, known_fields):
        if self.source is None:
            raise ValueError(
                "weights without a config do not state the architecture; name it: "
                "keras_vit.create_model(name, weights=path). Received: a file of Keras without a config"
            )
        return {}


def select_model(checkpoint, prefix):
    """Selects the variables of one model in a file of Keras, and its layout.

    Args:
        checkpoint: `Checkpoint` of such a file.
        prefix: str, of the model.

    Returns:
        `(shapes, layout)`. Layers around the model are left out.

    Raises:
        ValueError: if the metadata are malformed.
    """
    content = checkpoint.content
    shapes, source = behind(content.shapes, prefix, content.roots), None
    metadata = _find_metadata(content.keras_config, prefix)
    if metadata is not None:
        fields, layers = metadata
        source = safetensors_metadata.parse(fields, checkpoint.path).config
        # A model without classes has no head: a layer of that name was put around it.
        layers = layers | ({head[:-1] for head in HEADS} if source.num_classes else set())
        if not source.is_built_of_keras_layers:
            shapes = {key: shape for key, shape in shapes.items() if key.split("/")[0] in layers}
    return shapes, KerasLayout(frozenset(shapes), source, content.roots[prefix])


def read_keras_metadata(checkpoint):
    """The `ModelMetadata` in a `.keras` file, or `None`.

    Raises:
        ValueError: if it is malformed.
    """
    metadata = _find_metadata(checkpoint.content.keras_config, checkpoint.subtree.prefix)
    return None if metadata is None else safetensors_metadata.parse(metadata[0], checkpoint.path)


def _find_metadata(keras_config, prefix):
    """Finds the config of a model's metadata layer, and the names of our layers beside it; `None` without one."""
    waiting = [(keras_config, (), set())]
    while waiting:
        node, names, layers = waiting.pop()
        if isinstance(node, list):
            waiting += [(item, names, layers) for item in node]
        elif isinstance(node, dict):
            config = node.get("config")
            if node.get("registered_name") == _METADATA and isinstance(config, dict):
                # The name of the outermost model is not part of the keys.
                if "".join(f"{name}/" for name in names[1:]) == prefix:
                    return config, layers
            elif isinstance(config, dict) and isinstance(config.get("name"), str):
                inner = config.get("layers")
                inner_layers = _our_layers(inner) if isinstance(inner, list) else layers
                waiting.append((list(config.values()), (*names, config["name"]), inner_layers))
            else:
                waiting += [(item, names, layers) for item in node.values() if isinstance(item, dict | list)]
    return None


def _our_layers(layers):
    """The names of those of our classes among layers, and of the one that is Keras' own in our models."""
    layers = [layer for layer in layers if isinstance(layer, dict) and isinstance(layer.get("config"), dict)]
    ours = [layer for layer in layers if str(layer.get("registered_name")).startswith("keras_vit>")]
    return {str(layer["config"].get("name")) for layer in ours} | {"pre_logits"}
