"""Creating a model and loading its weights: keras_vit beside timm and KerasHub, on the CPU.

Every turn is a process of its own that has imported its libraries and read the file once, so that it lies in memory.
The weights are random, in each library's own format: `.safetensors` with timm's keys, KerasHub's presets. Beside
that, the time of filling alone against that of reading the file, and the anonymous memory of create + load.

    python benchmarks/loading.py --json benchmarks/results/loading.json
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import random
import tempfile

import report
from command import split
from contenders import Contender, choose, missing_packages
from harness import Worker, WorkerError
from loading_report import fill_row, load_rows, markdown

BASELINE = "keras_vit from_checkpoint"
_KERAS = ("tensorflow", "keras", "keras_vit")
_HUB = ("tensorflow", "keras", "keras_hub")


def _contender(name, packages, how):
    return Contender(name, packages, "load_contenders:create_and_load", {"how": how})


LOADING = (
    _contender(BASELINE, _KERAS, "from_checkpoint"),
    _contender("keras_vit create_model", _KERAS, "create_model"),
    _contender("timm create_model", ("torch", "timm"), "timm_create_model"),
    _contender("kerashub from_preset", _HUB, "from_preset"),
)
FILLING = Contender("keras_vit load_weights", _KERAS, "load_contenders:fill")
WRITERS = {
    "safetensors": Contender("writer of safetensors", _KERAS, "load_contenders:write_safetensors"),
    "preset": Contender("writer of presets", (*_HUB, "keras_vit"), "load_contenders:write_preset"),
}
ROOM = 4  # free memory that a measurement needs, as a multiple of the file


def once(contender, threads=None, **arguments):
    """The answer of a fresh process, a dict; `{"note": reason}` where it fails."""
    missing = missing_packages(contender)
    if missing:
        return {"note": f"not installed: {', '.join(missing)}"}
    worker = Worker(contender, threads)
    try:
        return worker.ask("once", contender=dataclasses.asdict(contender), arguments=arguments)
    except WorkerError as error:
        return {"note": " ".join(str(error).split())[:160]}
    finally:
        worker.close()


def write_files(name, folder, kinds):
    """Writes the files of a model that are not there yet; gives their paths by kind."""
    files = {"safetensors": str(folder / f"{name}.safetensors"), "preset": str(folder / name)}
    for kind in kinds:
        if not os.path.exists(files[kind]):
            report.progress(f"writing {files[kind]}: {once(WRITERS[kind], name=name, files=files)}")
    return files


def measure_loading(contenders, name, files, rounds, threads):
    """Raw results by contender: `parameters`, `memory`, and `seconds`, one a round, or a `note`."""
    results = {}
    for contender in contenders:
        results[contender.name] = once(contender, threads, name=name, files=files, watch=True) | {"seconds": []}
    order = random.Random(0)
    for number in range(rounds):
        report.progress(f"{name}: round {number + 1} of {rounds}")
        for contender in order.sample(contenders, len(contenders)):
            result = results[contender.name]
            if "note" not in result:
                answer = once(contender, threads, name=name, files=files, watch=False)
                result["seconds"].append(answer.pop("seconds", None))
                result.update(answer)
    return results


def measure_filling(name, files, rounds, threads):
    """Raw results of one model: `memory` of create + load, and `fill`, `read`, `read_into` in seconds, one a round."""
    size, free = os.path.getsize(files["safetensors"]), _free_memory()
    if free is not None and free < ROOM * size:
        return {"note": f"needs {ROOM * size / 1e9:.0f} GB of free memory, {free / 1e9:.0f} GB are"}
    result = once(LOADING[0], threads, name=name, files=files, watch=True) | {"bytes": size}
    for number in range(rounds):
        report.progress(f"{name}, filling: round {number + 1} of {rounds}")
        answer = once(FILLING, threads, name=name, files=files)
        if "note" in answer:
            return answer
        for key, seconds in answer.items():
            result.setdefault(key, []).append(seconds)
    return result


def _free_memory():
    """Bytes, or `None` outside Linux."""
    path = pathlib.Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def parser():
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--models", default="vit_base_patch16_224,swin_base_patch4_window7_224", help="create + load")
    options.add_argument(
        "--fill", default="vit_base_patch16_224,vit_large_patch16_224,vit_huge_patch14_224", help="filling alone"
    )
    options.add_argument("--contenders", default="", help="names with commas; all if not given")
    options.add_argument("--rounds", type=int, default=7, help="fresh processes of each contender")
    options.add_argument("--threads", type=int, help="threads of each framework; its own choice if not given")
    options.add_argument("--folder", help="keeps the files there, 5 GB for the default models; else they are temporary")
    options.add_argument("--json", help="where to write the record, for example benchmarks/results/loading.json")
    options.add_argument("--markdown", help="where to write the table, which is printed in any case")
    return options


def main(argv=None):
    """Measures, prints the tables, and writes what was asked for."""
    options = parser()
    arguments = options.parse_args(argv)
    try:
        contenders = choose(LOADING, split(arguments.contenders))
    except ValueError as error:
        options.error(str(error))
    setting = {key: value for key, value in vars(arguments).items() if key not in ("json", "markdown", "folder")}
    record = report.make_record("loading", setting, BASELINE) | {"filling": []}

    def save():
        report.save(record, markdown(record), arguments)

    place = contextlib.nullcontext(arguments.folder) if arguments.folder else tempfile.TemporaryDirectory()
    with place as name_of_folder:
        folder = pathlib.Path(name_of_folder)
        for name in split(arguments.models):
            files = write_files(name, folder, ("safetensors", "preset"))
            results = measure_loading(contenders, name, files, arguments.rounds, arguments.threads)
            record["rows"] += load_rows(name, os.path.getsize(files["safetensors"]), results, BASELINE)
            save()
        for name in split(arguments.fill):
            files = write_files(name, folder, ("safetensors",))
            record["filling"].append(fill_row(name, measure_filling(name, files, arguments.rounds, arguments.threads)))
            save()
    print(markdown(record))


if __name__ == "__main__":
    main()
