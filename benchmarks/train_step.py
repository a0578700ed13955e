"""Training steps of a Vision Transformer: keras_vit beside KerasHub and timm, interleaved in one run, on the CPU.

Every contender trains the same model (class token, no dropout, softmax cross-entropy, AdamW) on the same batch.
The Keras models go through `compile` and the train function of `fit`, with and without XLA (`jit_compile=True`);
timm through a plain PyTorch step, with and without `torch.compile`. Precision `bfloat16` is the dtype policy
`mixed_bfloat16` in Keras and autocast in PyTorch.

    python benchmarks/train_step.py --json benchmarks/results/train_step.json
"""

from command import main
from contenders import TRAINING

DEFAULTS = {"model": "vit_tiny", "image_size": 32, "patch_size": 4, "batch": 128}

if __name__ == "__main__":
    main("train_step", __doc__.partition("\n")[0], TRAINING, "kerashub fit", DEFAULTS)
