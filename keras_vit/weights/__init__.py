"""Loads checkpoints of every layout into models, strictly, and writes them again."""

from keras_vit.weights.assign import LoadReport
from keras_vit.weights.hub.catalog import catalog_entry, find_entries
from keras_vit.weights.hub.download import download
from keras_vit.weights.layouts.detect import LAYOUTS
from keras_vit.weights.load import from_checkpoint, load_published, load_variant, load_weights
from keras_vit.weights.lora import load_lora, save_lora
from keras_vit.weights.publish.push import push_to_hub, save_pretrained
from keras_vit.weights.save import save_weights

__all__ = [
    "LAYOUTS",
    "LoadReport",
    "catalog_entry",
    "download",
    "find_entries",
    "from_checkpoint",
    "load_lora",
    "load_published",
    "load_variant",
    "load_weights",
    "push_to_hub",
    "save_lora",
    "save_pretrained",
    "save_weights",
]
