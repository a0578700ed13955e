"""The page about segmentation, from its code alone, on a tiny model."""

import pathlib
import re

import numpy as np
from PIL import Image

import keras_vit
from keras_vit.models import ViTConfig, build_vit

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "segmentation.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 3)):
        for kind in ("images", "masks"):
            (tmp_path / "path" / "to" / "folder" / split / kind).mkdir(parents=True)
        for number in range(count):
            folder = tmp_path / "path" / "to" / "folder" / split
            pixels = random.integers(256, size=(20, 30, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
            Image.fromarray(pixels[..., 0] // 128).save(folder / "masks" / f"{number}.png")
    Image.fromarray(pixels).save("photo.jpg")
    config = ViTConfig(image_size=16, patch_size=8, hidden_dim=16, num_layers=1, num_heads=2, mlp_dim=24, num_classes=0)
    pathlib.Path("weights").mkdir()
    build_vit(config).save("weights/model.keras")
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    names = {}
    exec(code.replace("path/to/weights", "weights/model.keras"), names)
    assert names["mask"].shape == (20, 30)
    assert (names["segmenter"]("photo.jpg") == names["mask"]).mean() > 0.97
    assert keras_vit.models.is_segmenter(names["finished"].model)
