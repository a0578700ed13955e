"""`keras_vit embed`, `knn`, `probe` and `similar`: a few labeled images and a pretrained model."""

import json
import pathlib
import tempfile

import numpy as np

from keras_vit.atomic import replaced
from keras_vit.cli.console import counted, say, warn
from keras_vit.data import find_image_folder
from keras_vit.evaluation.contact_sheet import contact_sheet
from keras_vit.evaluation.embeddings import Embeddings, check_same_source, load_embeddings
from keras_vit.evaluation.extract import embed_to_file
from keras_vit.evaluation.neighbors import KS, nearest
from keras_vit.evaluation.neighbors import knn as measure_knn
from keras_vit.evaluation.probes import SHOTS, few_shot, linear_probe, split_by_class
from keras_vit.image_ops.pillow_reader import read_pixels
from keras_vit.zoo.create import load_model
from keras_vit_client.image_files import find_images

_TEST, _HELD_OUT = 0.2, "a fifth of the images of each class"


def embed(options):
    """Embeds images into a file."""
    files, labels, names = _labeled_files(options.images)
    model = _model(options)
    _embed(model, files, options.to, labels, names, options)
    found = load_embeddings(options.to)
    classes = f", {len(names)} classes" if names else ""
    say(f"{options.to}: {len(found):,} embeddings of {found.features.shape[1]} numbers{classes}")


def _model(options):
    return load_model(options.model, **({} if options.image_size is None else {"image_size": options.image_size}))


def _embed(model, files, path, labels, names, options):
    """Embeds files with a progress bar and names those that are left out."""
    with counted("images", len(files)) as advance:
        unreadable = embed_to_file(
            model,
            files,
            path,
            labels,
            names,
            features=options.features,
            batch_size=options.batch_size,
            overwrite=options.overwrite,
            advance=advance,
        )
    for file, reason in unreadable:
        warn(f"left out: {file}: {reason}")


def _labeled_files(arguments):
    """Files, labels and class names: those of the class folders where a single folder has them."""
    if len(arguments) == 1 and pathlib.Path(arguments[0]).is_dir():
        try:
            folder = find_image_folder(arguments[0], min_classes=1)
        except ValueError:  # no class folders
            return find_images(arguments), None, None
        files, labels = [], []
        for split in folder.splits.values():
            paths, numbers = split.examples(folder.class_names)
            files += paths
            labels.append(numbers)
        return files, np.concatenate(labels), folder.class_names
    return find_images(arguments), None, None


def knn(options):
    """Prints the accuracy of k-NN classifiers."""
    train, test = _train_and_test(options)
    ks = options.k or [k for k in KS if k <= len(train)] or [len(train)]
    results = measure_knn(train.features, train.labels, test.features, test.labels, ks, options.temperature)
    if options.json:
        print(json.dumps({"train": len(train), "test": len(test), "knn": results}))
        return
    say(f"{len(train):,} training images, {len(test):,} test images, {_count_classes(train)} classes")
    for k, measures in results.items():
        say(f"k {k:>4}: " + ", ".join(f"{name} {value:.4f}" for name, value in measures.items()))


def probe(options):
    """Fits a linear classifier on embeddings, prints its accuracy, and saves it as a model where that is wanted."""
    if options.save and not options.model:
        raise ValueError("--save needs --model, the model whose embeddings are classified. Received: no --model")
    train, test = _train_and_test(options)
    content = {"train": len(train), "test": len(test)}
    if options.shots is not None:
        fewest = int(np.bincount(train.labels)[np.unique(train.labels)].min())
        shots = options.shots or [count for count in SHOTS if count <= fewest]
        content["few_shot"] = few_shot(train.features, train.labels, test.features, test.labels, shots)
    found = linear_probe(train.features, train.labels, options.method, options.setting, seed=options.seed)
    content |= {"method": found.method, "setting": found.setting, "accuracy": found.score(test.features, test.labels)}
    content["sweep"] = found.sweep
    if options.save:
        classes = train.class_names or [str(label) for label in range(len(found.bias))]
        found.to_model(_model(options), classes, train.source["features"]).save(options.save)
    if options.json:
        print(json.dumps(content))
        return
    say(f"{len(train):,} training images, {len(test):,} test images, {_count_classes(train)} classes")
    for setting, accuracy in found.sweep.items():
        say(f"  {setting:g}: {accuracy:.4f} on the validation part")
    for shots, accuracies in content.get("few_shot", {}).items():
        each = ", ".join(f"{accuracy:.4f}" for accuracy in accuracies)
        say(f"{shots} images a class: accuracy {np.mean(accuracies):.4f} (draws: {each})")
    say(f"{found.method}, {found.setting:g}: accuracy {content['accuracy']:.4f}")
    if options.save:
        say(f"{options.save} written; export it: keras_vit export {options.save} --to saved_models/probe")


def _count_classes(embeddings):
    return len(np.unique(embeddings.labels))


def _train_and_test(options):
    """The embeddings to fit on and those to measure on; a part of the images where there is no test split."""
    if options.data is not None:
        if options.train or options.test:
            raise ValueError("--data stands for --train and --test. Received: both")
        return _of_folder(options)
    if not options.train:
        raise ValueError(
            "--data FOLDER --model MODEL, or --train FILE, must say which images. Received: neither --data nor --train"
        )
    train = _labeled(options.train, load_embeddings(options.train))
    if not options.test:
        return _held_out(train)
    test = _labeled(options.test, load_embeddings(options.test))
    check_same_source(train, test)
    if train.class_names and test.class_names and train.class_names != test.class_names:
        unknown = [name for name in test.class_names if name not in train.class_names]
        if unknown:
            raise ValueError(f"test images must be of the training classes. Received: {', '.join(unknown[:10])}")
        numbers = np.array([train.class_names.index(name) for name in test.class_names])
        test = Embeddings(test.features, numbers[test.labels], train.class_names, test.paths, test.source)
    return train, test


def _labeled(path, embeddings):
    if embeddings.labels is None:
        raise ValueError(
            f"embeddings must have labels: embed a folder <folder>/<class>/<image>. Received: {path!r} without labels"
        )
    return embeddings


def _held_out(embeddings):
    """Divides embeddings into a training and a test part."""
    warn(f"no test images are given: {_HELD_OUT} are held out (seed 0)")
    train, test = split_by_class(embeddings.labels, _TEST)
    return tuple(
        Embeddings(
            embeddings.features[rows],
            embeddings.labels[rows],
            embeddings.class_names,
            None if embeddings.paths is None else tuple(embeddings.paths[row] for row in rows),
            embeddings.source,
        )
        for rows in (train, test)
    )


def _of_folder(options):
    """Embeds the training and the test images of a folder."""
    if not options.model:
        raise ValueError("--data needs --model, which embeds the images. Received: no --model")
    folder, model = find_image_folder(options.data, min_classes=2), _model(options)
    names = [name for name in ("train", "validation", "test") if name in folder.splits]
    chosen = [names[0], names[-1]] if len(names) > 1 else [*folder.splits]
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in dict.fromkeys(chosen):
            files, labels = folder.splits[name].examples(folder.class_names)
            path = pathlib.Path(scratch) / f"{name}.npz"
            _embed(model, files, path, labels, folder.class_names, options)
            found.append(load_embeddings(path))
    if len(found) == 1:
        return _held_out(found[0])
    warn(f"trained on {chosen[0]}, measured on {chosen[1]}")
    return found


def similar(options):
    """Prints the images whose embeddings are nearest to those of the query images."""
    stored = load_embeddings(options.embeddings)
    if stored.paths is None:
        raise ValueError(f"embeddings must name their images. Received: {str(options.embeddings)!r} without paths")
    size = (stored.source or {}).get("input_spec", {}).get("size")
    name = options.model or _model_of(stored, options.embeddings)
    model, files = load_model(name, **({"image_size": tuple(size)} if size else {})), find_images(options.images)
    options.features, options.overwrite = (stored.source or {}).get("features", "representation"), True
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "queries.npz"
        _embed(model, files, path, None, None, options)
        queries = load_embeddings(path)
    check_same_source(stored, queries)
    indices, similarities = nearest(stored.features, queries.features, options.top_k)
    answers = []
    for query, rows, values in zip(queries.paths, indices, similarities, strict=True):
        answers.append(
            {
                "query": query,
                "nearest": [
                    {"path": stored.paths[row], "similarity": round(float(value), 6)} | _class_of(stored, row)
                    for row, value in zip(rows, values, strict=True)
                ],
            }
        )
    if options.json:
        print(json.dumps(answers))
    else:
        for answer in answers:
            say(answer["query"])
            for item in answer["nearest"]:
                say(f"  {item['similarity']:.4f}  {item['path']}" + (f"  ({item['class']})" if "class" in item else ""))
    if options.to:
        _draw(answers, options.to)


def _model_of(stored, path):
    origin = (stored.source or {}).get("origin")
    if not origin:
        raise ValueError(
            f"--model is needed: {str(path)!r} does not say which weights made its embeddings. Received: no --model"
        )
    return origin


def _class_of(stored, row):
    return {"class": stored.class_names[stored.labels[row]]} if stored.class_names and stored.labels is not None else {}


def _draw(answers, path):
    """Draws each query and the images near it, a row each."""
    images, titles = [], []
    for answer in answers:
        images.append(_pixels(answer["query"]))
        titles.append("query")
        for item in answer["nearest"]:
            images.append(_pixels(item["path"]))
            titles.append(f"{item['similarity']:.3f}\n{item.get('class', '')}".strip())
    columns = 1 + len(answers[0]["nearest"])
    with replaced(path) as partial:
        contact_sheet(images, titles, columns).savefig(partial, dpi=120, bbox_inches="tight")
    warn(f"{path} written")


def _pixels(file):
    return read_pixels(pathlib.Path(file).read_bytes(), 3)
