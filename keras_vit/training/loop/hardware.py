"""The precision and the compiler of a recipe on the hardware of this machine."""

import functools
import pathlib

# Linux names of the CPU instructions that multiply bfloat16 matrices.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


@functools.cache
def cpu_flags():
    """The features of the first CPU, as a frozenset of Linux names; empty on other systems."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def choose_precision(recipe, device, flags=None):
    """The name of the dtype policy for a recipe on a device.

    `auto` is bfloat16 on accelerators and on CPUs that multiply it in hardware, else float32. With AMX a step of
    ViT-Ti/4 takes half of float32's time (`benchmarks/results`).

    Args:
        recipe: `Recipe`.
        device: `cpu`, `gpu` or `tpu`.
        flags: names of CPU features; by default `cpu_flags()`.
    """
    if recipe.training.precision != "auto":
        return recipe.training.precision
    is_fast = device != "cpu" or bool(_BFLOAT16_FLAGS & set(cpu_flags() if flags is None else flags))
    return "mixed_bfloat16" if is_fast else "float32"


def choose_compiler(recipe, device, replicas):
    """The compiler of a recipe's training step: `xla`, `fused` or `plain`.

    `auto` is `fused` on CPUs, where `keras_vit.training.fused_training` is faster (`benchmarks/results`), and `xla` on
    one accelerator: the whole step is one XLA program. On several accelerators it is `plain`: their step contains an
    all-reduce of the gradients, which XLA compiles on TPUs only, and there TensorFlow compiles every step itself.

    Args:
        recipe: `Recipe`.
        device: `cpu`, `gpu` or `tpu`.
        replicas: int.
    """
    if recipe.training.compiler != "auto":
        return recipe.training.compiler
    if device == "cpu":
        return "fused"
    return "plain" if replicas > 1 else "xla"
