"""How a recipe runs on the hardware at hand: precision and compiler."""

import functools
import pathlib

# Instructions that multiply matrices of bfloat16, as Linux names them.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


@functools.cache
def cpu_flags():
    """What the first CPU can do, as a frozenset of Linux' names; empty elsewhere."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def choose_precision(recipe, device, flags=None):
    """The dtype policy's name for a recipe on a kind of device, `cpu`, `gpu` or `tpu`.

    `auto` is bfloat16 on accelerators and on CPUs that multiply it in hardware, else float32. With AMX a step of
    ViT-Ti/4 takes half of float32's time (`benchmarks/results`).

    Args:
        recipe: `Recipe`.
        device: `cpu`, `gpu` or `tpu`.
        flags: what the CPU can do; by default `cpu_flags()`.
    """
    wanted = recipe.training.precision
    if wanted != "auto":
        return wanted
    fast = device != "cpu" or bool(_BFLOAT16_FLAGS & set(cpu_flags() if flags is None else flags))
    return "mixed_bfloat16" if fast else "float32"


def choose_compiler(recipe, device, replicas):
    """How a recipe's training step is compiled: `xla`, `fused` or `plain`.

    CPUs get the mixture of `keras_vit.training.fused_training`, which is faster there (`benchmarks/results`), an
    accelerator all of the step as one XLA program. Several accelerators do not: their step holds the sum of the
    gradients over them, which XLA does not compile but on TPUs; and on those TensorFlow compiles every step by itself.
    """
    if recipe.training.compiler != "auto":
        return recipe.training.compiler
    if device == "cpu":
        return "fused"
    return "plain" if replicas > 1 else "xla"
