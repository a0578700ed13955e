"""Writes models as folders and Hub repositories that timm and keras_vit read."""

import json
import os
import pathlib
import tempfile

from keras_vit.metadata import metadata
from keras_vit.origin import portable_origin
from keras_vit.weights.hub.catalog import catalog
from keras_vit.weights.hub.download import WEIGHTS_FILE
from keras_vit.weights.publish.model_card import front_matter, model_card
from keras_vit.weights.publish.timm_config import timm_config
from keras_vit.weights.save import save_weights


def save_pretrained(model, folder, *, license_id=None, card=None, repository=None):
    """Writes a model as timm writes one: `model.safetensors`, `config.json` and a card, `README.md`.

    `keras_vit.from_checkpoint(folder / "model.safetensors")` and `timm.create_model("local-dir:" + folder)` read it.

    Args:
        model: a model of keras_vit.
        folder: path; created if it does not exist.
        license_id: str or `None`. SPDX identifier of the license; `None`: that of the weights, if known.
        card: str or `None`: a card of your own instead of the generated one.
        repository: `organization/name` on the Hub for the generated card, or `None`.

    Raises:
        ValueError: if timm has no such model, with the reason.
    """
    folder = pathlib.Path(folder)
    content = metadata(model)
    license_id = license_id or license_of(content)
    config = timm_config(content.config, content.input_spec, content.labels, license_id)
    save_weights(model, folder / WEIGHTS_FILE, "timm")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card or _card(model, license_id, repository), encoding="utf-8")


def push_to_hub(model, repository, *, license_id=None, card=None, private=False, token=None, message="Add model"):
    """Uploads a model to the Hugging Face Hub, as `save_pretrained` writes it.

    Args:
        model: a model of keras_vit.
        repository: str, `organization/name`; created if it does not exist. An existing card is kept unless `card` is
            passed.
        license_id: str or `None`. As for `save_pretrained`.
        card: str or `None`. As for `save_pretrained`.
        private: bool. Whether a new repository is private.
        token: str or `None`: the one of `hf auth login`.
        message: str. Of the commit.

    Returns:
        str. The URL of the commit.

    Raises:
        ValueError: if timm has no such model, with the reason. Nothing is uploaded.
    """
    import huggingface_hub

    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, license_id=license_id, card=card, repository=repository)
        api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
        repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
        keeps = card is None and api.file_exists(repository, "README.md")
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=message,
            ignore_patterns=["README.md"] if keeps else None,
        )
    return str(commit.commit_url)


def _card(model, license_id, repository):
    content = metadata(model)
    has_classes = content.config.num_classes > 0
    where = f"hub:{repository}" if repository else WEIGHTS_FILE
    card = model_card(
        repository.split("/")[-1] if repository else model.name,
        content.config,
        content.input_spec,
        model.count_params(),
        summary=f"Made with keras_vit. Origin of the weights: {shown_origin(content.origin)}.",
        license_id=license_id,
        has_classes=has_classes,
        command=f"keras_vit evaluate {where} --data NAME --split SPLIT",
        data="-",
        load=f'keras_vit.from_checkpoint("{where}")',
        repository=repository,
    )
    return front_matter(license_id, has_classes) + card


def license_of(content):
    """Finds the license of a model's weights.

    Args:
        content: `ModelMetadata`.

    Returns:
        str: the one in the metadata of the model, or that of the published weights it was made from; `None` if unknown.
    """
    entry = catalog().get(content.origin)
    return content.license or (entry.license if entry else None)


def shown_origin(origin):
    """Describes an origin in words, in the form of `keras_vit.origin.portable_origin`."""
    return "trained from scratch" if origin is None else portable_origin(origin)
