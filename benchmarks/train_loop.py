"""The training loop with its data: keras_vit beside KerasHub and timm, interleaved in one run, on the CPU.

Every contender trains the same model (class token, no dropout, softmax cross-entropy, AdamW) on images that lie in
memory as bytes and are shuffled, cropped behind a padding of 4 pixels, mirrored and normalized anew in every step.
KerasHub's model gets its batches from the pipeline of keras_vit; timm's has the same changes as operations on whole
batches in PyTorch. `keras_vit train` also clips and follows a schedule, as its recipes do.

    python benchmarks/train_loop.py --json benchmarks/results/train_loop.json
"""

from command import main
from contenders import LOOPS

DEFAULTS = {"model": "vit_tiny", "image_size": 32, "patch_size": 4, "batch": 128}

if __name__ == "__main__":
    main("train_loop", __doc__.partition("\n")[0], LOOPS, "kerashub fit", DEFAULTS)
