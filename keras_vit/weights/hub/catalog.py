"""Catalog of published weights by `architecture.tag`: source, preprocessing, license and accuracy of each.

The rows are in `catalog.tsv`, one a checkpoint. Sources of its figures: the model cards of timm on the Hugging Face
Hub (preprocessing, classes, license), timm's `results-imagenet.csv` or the paper named (top-1 accuracies on
ImageNet-1k). Hub files carry their SHA-256 in the Hub's answer, files of Google's storage their MD5; both are checked
when they are downloaded. A file is that of the main branch at the time of the download; a cached file stays.

big_vision's S/16 was evaluated after a resize by area, which is `bilinear` here, antialiased.
"""

import dataclasses
import fnmatch
import functools
import importlib.resources
import json
import types

from keras_vit.models import VARIANTS
from keras_vit.preprocessing import InputSpec
from keras_vit.validation import nearest
from keras_vit.weights.hub.download import parse_hub

_MEAN_STD = {
    "half": ((0.5,) * 3, (0.5,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


@dataclasses.dataclass(frozen=True)
class CatalogEntry:
    """One published checkpoint.

    Args:
        name: str, `architecture.tag`.
        source: `hub:organization/repository` or a URL, as for `download`.
        layout: str, one of `keras_vit.weights.LAYOUTS`.
        fields: read-only mapping. Fields of the config that differ from the architecture's, `num_classes` always.
        input_spec: `InputSpec`. Preprocessing that the weights were trained with.
        labels: name of the label set (see `read_labels`), or `None`.
        parameters: int. Numbers in the model; a float32 file has four bytes each.
        license: str, an SPDX identifier.
        paper: str.
        top1: float or `None`. Published accuracy on ImageNet-1k in percent.
        top1_source: str or `None`. Who published it.
    """

    name: str
    source: str
    layout: str
    fields: types.MappingProxyType
    input_spec: InputSpec
    labels: str | None
    parameters: int
    license: str
    paper: str
    top1: float | None
    top1_source: str | None

    @property
    def architecture(self):
        """str. The name without the tag."""
        return self.name.partition(".")[0]

    @property
    def revision(self):
        """str or `None`. The revision of a Hub repository that is downloaded; `None` for a URL.

        The rows follow `main`. A commit is pinned by `create_model(architecture, weights="hub:repository@commit")`.
        """
        if not self.source.startswith("hub:"):
            return None
        return parse_hub(self.source)[1] or "main"

    @property
    def size(self):
        """int. Bytes of the model's weights in float32; a file may differ by a larger position table."""
        return 4 * self.parameters

    def config(self, **overrides):
        """Returns the config of the checkpoint's model, with `overrides`.

        Raises:
            ValueError: on an unknown field, with the nearest one.
        """
        return VARIANTS[self.architecture].replace(**{**self.fields, **overrides})

    def input_spec_for(self, config):
        """Returns the preprocessing at a config's image size; for other than three channels with their average."""
        spec, channels = self.input_spec.replace(size=config.image_size), config.num_channels
        if channels == spec.num_channels:
            return spec
        mean, std = (sum(values) / len(values) for values in (spec.mean, spec.std))
        return spec.replace(mean=(mean,) * channels, std=(std,) * channels)

    def labels_for(self, config):
        """Returns the class names in the order of the logits, or `None` if a config has other classes or none."""
        same = self.labels is not None and config.num_classes == self.fields["num_classes"]
        return read_labels(self.labels) if same else None


def read_labels(name):
    """Reads the class names of a label set, in the order of the logits.

    Args:
        name: `imagenet1k` (names), `imagenet21k` (the 21,843 WordNet ids of Google's models) or `imagenet22k` (the
            21,841 of Microsoft's: two less).

    Returns:
        A tuple of str.
    """
    if name == "imagenet1k":
        return tuple(label for _, label in _label_rows("imagenet1k"))
    ids = tuple(row[0] for row in _label_rows("imagenet21k"))
    return ids if name == "imagenet21k" else tuple(i for i in ids if i not in _NOT_IN_22K)


def imagenet_ids():
    """Returns the WordNet ids of the 1,000 classes, in the order of the logits, as data sets name them."""
    return tuple(wordnet_id for wordnet_id, _ in _label_rows("imagenet1k"))


# Two ids of Google's list that the release of autumn 2011 lacks.
_NOT_IN_22K = ("n03931044", "n09859684")


def _label_rows(name):
    text = importlib.resources.files("keras_vit.weights.hub").joinpath(f"labels/{name}.tsv").read_text("utf-8")
    return [line.split("\t") for line in text.splitlines()]


@functools.cache
def catalog():
    """Reads all entries, a dict from `architecture.tag` to `CatalogEntry`."""
    text = importlib.resources.files("keras_vit.weights.hub").joinpath("catalog.tsv").read_text("utf-8")
    header, *lines = (line.split("\t") for line in text.splitlines())
    entries = (_entry(dict(zip(header, line, strict=True))) for line in lines)
    return {entry.name: entry for entry in entries}


def _entry(row):
    fields = {"num_classes": int(row["num_classes"]), **json.loads(row["fields"])}
    size = VARIANTS[row["name"].partition(".")[0]].replace(**fields).image_size
    mean, std = _MEAN_STD[row["mean_std"]]
    crop = None if row["crop"] == "squash" else float(row["crop"])
    return CatalogEntry(
        row["name"],
        row["source"],
        row["layout"],
        types.MappingProxyType(fields),
        InputSpec(size, crop, row["interpolation"], mean, std),
        _optional(row["labels"]),
        int(row["parameters"]),
        row["license"],
        row["paper"],
        None if row["top1"] == "-" else float(row["top1"]),
        _optional(row["top1_source"]),
    )


def _optional(text):
    return None if text == "-" else text


def catalog_entry(name):
    """Returns the entry of a name with a tag.

    Raises:
        ValueError: if there is none, with the nearest name and the tags of the architecture.
    """
    if name in catalog():
        return catalog()[name]
    architecture = name.partition(".")[0]
    siblings = sorted(known for known in catalog() if known.partition(".")[0] == architecture)
    tags = [known.partition(".")[2] for known in siblings]
    similar = nearest(name.partition(".")[2], tags) if tags else nearest(name, catalog())
    listed = f" Its tags: {', '.join(tags)}." if tags else ""
    raise ValueError(f"no published weights of this name{similar}{listed} Received: name={name!r}")


def find_entries(pattern="*"):
    """Lists the sorted names of the catalog that match a pattern with `*` and `?`, ignoring case."""
    return sorted(fnmatch.filter(catalog(), pattern.lower()))
