"""Serving: the SavedModel of keras_vit beside KerasHub's export, ONNX Runtime and OpenVINO, interleaved in one run.

Latency and images/s against the batch, from the bytes of photographs and from images that are ready; the time that
decoding, resizing and normalizing take beside the model's; the first answers of a fresh process with and without
warm-up records; memory and size on disk. The weights are random. One client asks, one request at a time.

    KERAS_VIT_DATA=DIR python benchmarks/serving.py --json benchmarks/results/serving.json
"""

import argparse
import dataclasses
import os
import pathlib
import random
import tempfile

import report
from command import split
from contenders import Contender, Task, choose, missing_packages
from harness import Worker, WorkerError
from loading import once
from serving_report import markdown, rows_of

_TF = ("tensorflow", "keras_vit")
BASELINES = {"bytes": "keras_vit SavedModel", "floats": "keras_vit called"}
CONTENDERS = (
    Contender(BASELINES["bytes"], ("tensorflow",), "serving_contenders:saved_model"),
    Contender("kerashub model.export", _TF, "serving_contenders:kerashub"),
    Contender("onnxruntime", ("onnxruntime", "keras_vit"), "serving_contenders:onnx"),
    Contender("openvino", ("openvino", "keras_vit"), "serving_contenders:openvino", {"precision": None}),
    Contender("openvino f32", ("openvino", "keras_vit"), "serving_contenders:openvino", {"precision": "f32"}),
    Contender(BASELINES["floats"], _TF, "serving_contenders:direct", {"how": "call"}),
    Contender("keras_vit predict_on_batch", _TF, "serving_contenders:direct", {"how": "predict"}),
)
WRITER = Contender("writer", (*_TF, "keras"), "serving_contenders:write")
HUB_WRITER = Contender("writer of KerasHub", (*_TF, "keras", "keras_hub"), "serving_contenders:write_kerashub")
SIZES = Contender("sizes", (), "serving_contenders:sizes")
STAGES = Contender("stages", _TF, "serving_contenders:stages")
COLD_START = Contender("cold start", (*_TF, "tensorflow_serving"), "serving_contenders:cold_start")
_NEEDS = {
    "kerashub model.export": "kerashub",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "openvino f32": "openvino",
}


def write_files(name, folder, threads):
    """Writes a model in every format; gives the paths by format and what the writer tells, with `notes` by format."""
    places = {"saved_model": f"{name}/1", "kerashub": "kerashub", "onnx": "model.onnx", "openvino": "model.xml"}
    files = {kind: str(folder / place) for kind, place in {**places, "keras": "model.keras"}.items()}
    told = once(WRITER, threads, name=name, files=files)
    if "note" in told:
        return files, told
    answer = {"note": "KerasHub's Swin is not compared"}
    if not name.startswith("swin"):
        answer = once(HUB_WRITER, threads, name=name, files=files)
    if "note" in answer:
        told["notes"]["kerashub"] = answer["note"]
    return files, told


def measure(contenders, task, batches, notes, rounds, seconds, threads):
    """Asks contenders in turns of about `seconds`, or one call, in a new order every round.

    Args:
        contenders: list of `Contender`.
        task: `Task` of the largest batch.
        batches: list of int.
        notes: dict from format to the reason why it is missing.
        rounds, seconds, threads: as for `harness.measure`.

    Returns:
        A dict from contender to its raw results: a `note`, or `memory` and `times`, a dict from batch to the seconds of
        its calls.
    """
    results, workers = {}, {}
    try:
        for contender in contenders:
            reason = notes.get(_NEEDS.get(contender.name)) or _missing(contender)
            results[contender.name] = {"note": reason} if reason else {"times": {batch: [] for batch in batches}}
            if reason:
                continue
            report.progress(f"{task.label}: starting {contender.name}")
            workers[contender.name] = worker = Worker(contender, threads)
            request = {"contender": dataclasses.asdict(contender), "task": dataclasses.asdict(task)}
            if _ask(worker, results[contender.name], "prepare", **request) is None:
                workers.pop(contender.name).close()
        order = random.Random(0)
        for batch in batches:
            report.progress(f"{task.label}: batch {batch}")
            for number in range(rounds):
                for name in order.sample(list(workers), len(workers)):
                    if not _turn(workers[name], results[name], batch, seconds, first=number == 0):
                        workers.pop(name).close()
        for name, worker in workers.items():
            results[name].update(_ask(worker, results[name], "memory") or {})
    finally:
        for worker in workers.values():
            worker.close()
    return results


def _missing(contender):
    missing = missing_packages(contender)
    return f"not installed: {', '.join(missing)}" if missing else None


def _ask(worker, result, do, **arguments):
    """A reply, or `None`, with the reason in the result."""
    try:
        return worker.ask(do, **arguments)
    except WorkerError as error:
        result.clear()
        result["note"] = " ".join(str(error).split())[:160]
        return None


def _turn(worker, result, batch, seconds, first):
    """One turn; before the first two calls settle the batch. Whether it succeeded."""
    if first and _ask(worker, result, "run", warm=1, steps=1, arguments={"batch": batch}) is None:
        return False
    known = result["times"][batch]
    steps = 1 if first else max(1, min(1000, round(seconds * len(known) / sum(known))))
    reply = _ask(worker, result, "run", warm=0, steps=steps, arguments={"batch": batch})
    if reply is not None:
        known += reply["seconds"]
    return reply is not None


def cold_starts(files, folder, batches, rounds, threads):
    """Raw results of fresh processes: a list of dicts with `batch`, `warm` and milliseconds, or a `note`."""
    results = []
    for _ in range(rounds):
        for batch in batches:
            for warm in (False, True):
                arguments = {"files": files, "folder": folder, "batch": batch, "warm": warm}
                results.append({"batch": batch, "warm": warm, **once(COLD_START, threads, **arguments)})
    return results


def parser():
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    data = os.environ.get("KERAS_VIT_DATA")
    models = "vit_tiny_patch16_224,vit_small_patch16_224,vit_base_patch16_224,swin_tiny_patch4_window7_224"
    options.add_argument("--models", default=models, help="names with commas")
    options.add_argument(
        "--folder",
        default=data and str(pathlib.Path(data) / "imagenet_samples"),
        help="of JPEGs; imagenet_samples in the folder that KERAS_VIT_DATA names",
    )
    options.add_argument("--kinds", default="bytes,floats", help="what comes in, a list with commas")
    options.add_argument("--batches", default="1,2,4,8,16", help="images a request, a list with commas")
    options.add_argument("--contenders", default="", help="names with commas; all if not given")
    options.add_argument("--rounds", type=int, default=8, help="turns of each contender")
    options.add_argument("--seconds", type=float, default=2.0, help="length of a turn, of one call at least")
    options.add_argument("--stage-batch", type=int, default=8, help="images a request, for the share of the stages")
    options.add_argument("--stage-calls", type=int, default=20, help="calls, for the share of the stages")
    options.add_argument("--cold-batches", default="1,8", help="images of the first request, a list with commas")
    options.add_argument("--cold-rounds", type=int, default=3, help="fresh processes; 0 leaves them away")
    options.add_argument("--threads", type=int, help="threads of each framework; its own choice if not given")
    options.add_argument("--json", help="where to write the record, for example benchmarks/results/serving.json")
    options.add_argument("--markdown", help="where to write the tables, which are printed in any case")
    return options


def measure_model(name, chosen, arguments, folder, record):
    """Adds what one model shows to the record."""
    files, told = write_files(name, folder, arguments.threads)
    if "note" in told:
        record["rows"].append({"model": name, "contender": WRITER.name, "note": told["note"]})
        return
    record["sizes"].append({"model": name, "parameters": told["parameters"], **once(SIZES, files=files)})
    batches = [int(batch) for batch in split(arguments.batches)]
    config = {"files": files, "folder": arguments.folder, **{key: told[key] for key in ("input_spec", "parameters")}}
    for kind in split(arguments.kinds):
        task = Task(f"{name}, {kind}", {**config, "kind": kind}, max(batches), "float32", training=False)
        # A model that is called takes no bytes by itself; predict_on_batch stands for it, behind Pillow.
        contenders = [c for c in chosen if kind == "floats" or c.name != BASELINES["floats"]]
        turns = (arguments.rounds, arguments.seconds, arguments.threads)
        results = measure(contenders, task, batches, told["notes"], *turns)
        record["rows"] += rows_of(name, kind, results, BASELINES[kind])
    stage = {"files": files, "folder": arguments.folder, "batch": arguments.stage_batch}
    answer = once(STAGES, arguments.threads, **stage, input_spec=told["input_spec"], calls=arguments.stage_calls)
    record["stages"].append({"name": name, "batch": arguments.stage_batch, **answer})
    cold_batches = [int(batch) for batch in split(arguments.cold_batches)]
    starts = cold_starts(files, arguments.folder, cold_batches, arguments.cold_rounds, arguments.threads)
    record["cold_starts"] += [{"model": name, **start} for start in starts]


def main(argv=None):
    """Measures, prints the tables, and writes what was asked for."""
    options = parser()
    arguments = options.parse_args(argv)
    try:
        chosen = choose(CONTENDERS, split(arguments.contenders))
    except ValueError as error:
        options.error(str(error))
    if unknown := set(split(arguments.kinds)) - set(BASELINES):
        options.error(f"--kinds must be of {sorted(BASELINES)}. Received: {sorted(unknown)}")
    if not arguments.folder:
        options.error("--folder must name a folder of JPEGs where KERAS_VIT_DATA is not set")
    setting = {key: value for key, value in vars(arguments).items() if key not in ("json", "markdown", "folder")}
    record = report.make_record("serving", setting, BASELINES["floats"])
    record |= {"baselines": BASELINES, "sizes": [], "stages": [], "cold_starts": []}
    for name in split(arguments.models):
        with tempfile.TemporaryDirectory() as folder:
            measure_model(name, chosen, arguments, pathlib.Path(folder), record)
        report.save(record, markdown(record), arguments)
    print(markdown(record))


if __name__ == "__main__":
    main()
