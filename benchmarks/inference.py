"""Inference of a Vision Transformer: keras_vit beside KerasHub and timm, interleaved in one run, on the CPU.

The Keras models run as `model.predict_on_batch`, with and without XLA, and as a plain `tf.function`; timm in
inference mode, with and without `torch.compile`. Precision `bfloat16` is the dtype policy `mixed_bfloat16` in
Keras, whose weights stay float32; in PyTorch the weights themselves are bfloat16. Inputs and outputs are float32.

    python benchmarks/inference.py --json benchmarks/results/inference.json
"""

from command import main
from contenders import INFERENCE

DEFAULTS = {"model": "vit_base,vit_tiny", "image_size": 224, "patch_size": 16, "batch": 8}

if __name__ == "__main__":
    main("inference", __doc__.partition("\n")[0], INFERENCE, "kerashub predict", DEFAULTS)
