"""Data parallelism: steps on one and several devices of this machine, bytes of a step, and a projection from them.

Measured, interleaved in one run, on the CPU: no strategy; a `MirroredStrategy` of one device, which tells what a
strategy costs; one of two logical devices; two processes (`MultiWorkerMirroredStrategy` on the loopback interface). A
device is a thread with a batch of its own: twice the images a second is ideal, where there are two cores.

Computed: the bytes that replicas sum up in a step, by model. Projected from them: 8, 64 and 256 devices; what is
assumed stands in the record and above the table.

    python benchmarks/scaling.py --json benchmarks/results/scaling.json
"""

import sys

import report
import scaling_report
from command import parser, split, tasks_of
from contenders import Contender, choose
from harness import take_turns

from keras_vit.models import VARIANTS, build_model

_PACKAGES = ("tensorflow", "keras", "keras_vit")
BASELINE = "no strategy"
# Name, strategy, devices, processes.
KINDS = (
    (BASELINE, None, 1, 1),
    ("1 device, mirrored", "cpu:1", 1, 1),
    ("2 devices, mirrored", "cpu:2", 2, 1),
    ("2 processes", "multi_worker", 2, 2),
)
DEVICES = {name: devices for name, _, devices, _ in KINDS}
CONTENDERS = tuple(
    Contender(name, _PACKAGES, "scaling_contenders:train", {"strategy": strategy, "devices": devices}, processes)
    for name, strategy, devices, processes in KINDS
)
DEFAULTS = {"model": "vit_tiny", "image_size": 32, "patch_size": 4, "batch": 64, "threads": 1}
NETWORKS = {"10 Gbit/s": 10e9 / 8, "100 Gbit/s": 100e9 / 8, "400 Gbit/s": 400e9 / 8}


def options():
    """The command line."""
    wanted = parser(__doc__.partition("\n")[0], DEFAULTS)
    wanted.add_argument(
        "--volumes",
        default="vit_tiny_patch16_224,vit_small_patch16_224,vit_base_patch16_224,vit_large_patch16_224,"
        "swin_tiny_patch4_window7_224",
        help="models whose bytes are computed, a list with commas",
    )
    wanted.add_argument("--flops", type=float, default=100e12, help="operations a second that a device sustains")
    wanted.add_argument("--device-batch", type=int, default=128, help="images of a device, for the projection")
    wanted.add_argument("--latency", type=float, default=20e-6, help="seconds of a message, for the projection")
    return wanted


def assumptions(arguments):
    """The assumptions of the projection, as numbers and in words."""
    words = (
        f"Assumed: every device computes {arguments.device_batch} images a step at {arguments.flops / 1e12:g} TFLOP/s; "
        "gradients are summed up as float32 by a ring, after all of them are computed, so that nothing overlaps; every "
        "device sends at the network's whole rate, in both directions at once, and a message takes "
        f"{arguments.latency * 1e6:g} us more; no device waits for data or for a slower one."
    )
    return {
        "batch": arguments.device_batch,
        "flops": arguments.flops,
        "latency": arguments.latency,
        "networks": NETWORKS,
        "devices": [8, 64, 256],
        "in_words": words,
    }


def volumes(names):
    """The `scaling_report.volume` of models by name, and their configs."""
    configs = {name: VARIANTS[name] for name in names}
    return {name: scaling_report.volume(build_model(config)) for name, config in configs.items()}, configs


def main(argv=None):
    """Reads the command line, measures, computes, prints the tables, and writes what was asked for."""
    wanted = options()
    arguments = wanted.parse_args(argv)
    try:
        chosen = choose(CONTENDERS, split(arguments.contenders))
        tasks = tasks_of(arguments, training=True)
        unknown = [name for name in split(arguments.volumes) if name not in VARIANTS]
        if unknown:
            raise ValueError(f"--volumes must be names of models. Received: {unknown}")
    except ValueError as error:
        wanted.error(str(error))
    setting = {name: value for name, value in vars(arguments).items() if name not in ("json", "markdown")}
    record = report.make_record("scaling", setting, BASELINE)
    record["volumes"], configs = volumes(split(arguments.volumes))
    record["assumptions"] = assumptions(arguments)
    record["projections"] = scaling_report.projections(record["volumes"], configs, record["assumptions"])
    for task, _ in tasks:
        log = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
        results = take_turns(chosen, task, arguments.rounds, arguments.seconds, arguments.threads, log)
        record["rows"] += scaling_report.measured_rows(task, results, DEVICES, BASELINE)
        if arguments.json:
            report.write(report.to_json(record), arguments.json)
    if arguments.markdown:
        report.write(scaling_report.markdown(record), arguments.markdown)
    print(scaling_report.markdown(record))


if __name__ == "__main__":
    main()
