"""The command line that both programs share."""

import argparse

import report
from contenders import Task, choose
from harness import measure

PRECISIONS = ("float32", "bfloat16")


def parser(description, defaults):
    """The options; `defaults` are those that differ between the programs."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", help="vit_tiny, vit_small, ..., a list with commas")
    options.add_argument("--image-size", type=int, help="pixels")
    options.add_argument("--patch-size", type=int, help="pixels")
    options.add_argument("--batch", type=int, help="images a step")
    options.add_argument("--num-classes", type=int, default=1000)
    options.add_argument(
        "--num-layers", type=int, help="encoder blocks, for a quick look; the model's own if not given"
    )
    options.add_argument("--precision", default=",".join(PRECISIONS), help="a list with commas")
    options.add_argument("--contenders", default="", help="names with commas; all if not given")
    options.add_argument("--rounds", type=int, default=10, help="turns of each contender")
    options.add_argument("--seconds", type=float, default=2.0, help="length of a turn, of one step at least")
    options.add_argument("--threads", type=int, help="threads of each framework; its own choice if not given")
    options.add_argument("--json", help="where to write the record, for example benchmarks/results/x.json")
    options.add_argument("--markdown", help="where to write the table, which is printed in any case")
    options.set_defaults(**defaults)
    return options


def model_config(name, arguments):
    """The config of a size such as `vit_tiny` at the sizes of the command line, without dropout.

    Raises:
        ValueError: on an unknown name, or sizes that do not fit.
    """
    from keras_vit.models import VARIANTS, ViTConfig

    sizes = {name.split("_patch")[0]: config for name, config in VARIANTS.items() if type(config) is ViTConfig}
    if name not in sizes:
        raise ValueError(f"--model must be one of {sorted(sizes)}. Received: {name!r}")
    config = sizes[name].replace(
        image_size=arguments.image_size, patch_size=arguments.patch_size, num_classes=arguments.num_classes
    )
    return config.replace(num_layers=arguments.num_layers) if arguments.num_layers else config


def split(text):
    """The words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def tasks_of(arguments, training):
    """A pair of `Task` and config for every model and precision.

    Raises:
        ValueError: on an unknown model or precision.
    """
    pairs = []
    for name in split(arguments.model):
        config = model_config(name, arguments)
        label = f"{name}/{arguments.patch_size}, {arguments.image_size} px, batch {arguments.batch}"
        for precision in split(arguments.precision):
            if precision not in PRECISIONS:
                raise ValueError(f"--precision must be one of {PRECISIONS}. Received: {precision!r}")
            pairs.append((Task(label, config.get_config(), arguments.batch, precision, training), config))
    return pairs


def main(benchmark, description, contenders, baseline, defaults, argv=None):
    """Reads the command line, measures, prints the table, and writes what was asked for.

    Args:
        benchmark: str. The program's name in its record.
        description: str. For `--help`.
        contenders: all `Contender`s of the program.
        baseline: str. The contender that ratios refer to.
        defaults: dict of options.
        argv: list of str or `None`: the process' own.
    """
    options = parser(description, defaults)
    arguments = options.parse_args(argv)
    training = benchmark in ("train_step", "train_loop")
    try:
        chosen = choose(contenders, split(arguments.contenders))
        pairs = tasks_of(arguments, training)
    except ValueError as error:
        options.error(str(error))
    setting = {name: value for name, value in vars(arguments).items() if name not in ("json", "markdown")}
    record = report.make_record(benchmark, setting, baseline)
    for task, config in pairs:
        results, peaks = measure(chosen, task, arguments.rounds, arguments.seconds, arguments.threads, report.progress)
        record["rows"] += report.rows_of(task, config, results, peaks, baseline)
        record["peaks"].append({"model": task.label, "precision": task.precision, "flops_per_second": peaks})
        report.save(record, report.markdown(record), arguments)
    print(report.markdown(record))
