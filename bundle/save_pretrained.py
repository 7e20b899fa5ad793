# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The global model of a job that trained a BertClassifier, as a folder that Hugging Face's transformers reads."""

from __future__ import annotations

import inspect
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.export import check_new
from bundle.jobs import read_json
from bundle.report.locate import Run, find_run, opened
from bundle.report.model import Report
from bundle.report.reading import read_report
from custom.data.folders import without_tilde
from custom.errors import BundleError

if TYPE_CHECKING:
    from custom.learning.weights import Weights
    from custom.models.bert_classifier import BertClassifier

MODEL = "custom.models.bert_classifier.BertClassifier"
DATA = "custom.data.text_data.TextData"  # its classes have names
CONFIG = "config/config_fed_client.json"
GLOBAL_MODEL, BEST_MODEL = "app_server/FL_global_model.pt", "app_server/best_FL_global_model.pt"


def save_pretrained(workspace: Path, out: Path, job_id: str = "", *, best: bool = False, encoder: str = "") -> str:
    """Writes the folder.

    Args:
        workspace: as of `bundle report`.
        out: a folder that does not exist yet, or is empty.
        job_id: which job, if there are several.
        best: take the best global model, by the job's model selection, in place of the last.
        encoder: in place of the job's `model_name_or_path`, where that is a folder at the sites.

    Returns:
        What was written and how to read it, for people.

    Raises:
        BundleError: there is no such job, it trains another model, it has left none, its weights do not fit, or `out`
            is not as it must be. `out` is then as it was.
    """
    out = without_tilde(out).absolute()
    check_new(out)
    run = find_run(workspace, job_id)
    wanted = BEST_MODEL if best else GLOBAL_MODEL
    with _server_files(run, wanted) as folder:
        config = _client_config(run, folder)
        arguments = _model_arguments(run, config) | ({"model_name_or_path": encoder} if encoder else {})
        weights = _weights(run, folder, wanted)
    model = _untrained(arguments, weights, encoder)
    _name_classes(model, config)
    _write(model, weights, out)
    report = read_report(workspace, run.job_id)
    title = f"job {report.job} ({run.job_id}), {report.status}: its {'best' if best else 'last'} global model"
    wrote = f"wrote {out}: {', '.join(sorted(path.name for path in out.iterdir()))}"
    return "\n".join(filter(None, [title, _warning(model, report, arguments), wrote, _usage(model, out)]))


@contextmanager
def _server_files(run: Run, *names: str) -> Iterator[Path]:
    """The run folder; of a job in FLARE's job store a temporary one with what is needed of it."""
    if run.archive is None:
        yield run.folder
        return
    with tempfile.TemporaryDirectory() as temporary, opened(run.archive) as archive:
        for name in {*names, f"app_server/{CONFIG}"} & set(archive.namelist()):
            archive.extract(name, temporary)
        yield Path(temporary)


def _client_config(run: Run, folder: Path) -> dict[str, Any]:
    """FLARE gives the server the sites' configuration as well, unless the job has an app of its own for them."""
    places = [folder / "app_server" / CONFIG, *sorted(run.folder.parent.glob(f"job/*/*/{CONFIG}"))]
    if run.sites_root:
        places += sorted(run.sites_root.glob(f"*/{run.job_id}/app_*/{CONFIG}"))
    for place in places:
        if place.is_file():
            return read_json(place)
    remedy = "give the whole workspace, or the job as it was downloaded"
    raise BundleError(
        f"job {run.job_id} has no {CONFIG} here",
        code="not-exportable",
        key=str(run.archive or run.folder),
        remedy=remedy,
    )


def _model_arguments(run: Run, config: Mapping[str, Any]) -> dict[str, Any]:
    entry = _component(config, "model")
    if entry.get("path") != MODEL:
        remedy = "only a job such as sparse-bert leaves a model that transformers reads"
        raise BundleError(
            code="not-exportable",
            key=f"job {run.job_id} model",
            expected=MODEL,
            got=entry.get("path", "none"),
            remedy=remedy,
        )
    return dict(entry.get("args") or {})


def _component(config: Mapping[str, Any], component_id: str) -> dict[str, Any]:
    return next((entry for entry in config.get("components", []) if entry.get("id") == component_id), {})


def _weights(run: Run, folder: Path, name: str) -> Weights:
    from custom.learning.weights import load_weights

    if not (folder / name).is_file():
        remedy = "without --best the last one is taken" if name == BEST_MODEL else "it is there when a round is done"
        where = str(run.archive or run.folder)
        raise BundleError(f"job {run.job_id} has left no {name}", code="not-exportable", key=where, remedy=remedy)
    return load_weights(folder / name)


def _untrained(arguments: dict[str, Any], weights: Weights, encoder: str) -> BertClassifier:
    """A model as in the job.

    Where the sites could not get their encoder, they have trained the embedded one; the weights tell. An `encoder` that
    was named is taken or refused, and never passed over.
    """
    from custom.models.bert_classifier import BertClassifier
    from custom.models.pretrained import EMBEDDED, find_pretrained

    try:
        bound = inspect.signature(BertClassifier).bind(**arguments)
    except TypeError as error:
        raise BundleError(str(error), code="not-exportable", key="the arguments of the job's model") from error
    bound.apply_defaults()
    settings = bound.arguments
    logging.disable(logging.WARNING)  # that the embedded encoder begins untrained
    try:
        embedded = BertClassifier(**settings | {"model_name_or_path": EMBEDDED})
        fits = _shapes(embedded.state_dict()) == _shapes(weights)
        if fits and encoder in ("", EMBEDDED):
            return embedded
        find_pretrained(settings["model_name_or_path"], "error")
        model = BertClassifier(**settings | {"on_missing": "error"})
    except BundleError as error:
        raise BundleError(f"{error} (--encoder)", code=error.code) from error
    finally:
        logging.disable(logging.NOTSET)
    if fits and _shapes(model.state_dict()) != _shapes(weights):
        got = f"the weights of the small {EMBEDDED} encoder"
        raise BundleError(
            code="not-exportable", key="--encoder", expected=f"weights of {encoder}", got=got, remedy="leave it out"
        )
    return model


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _name_classes(model: BertClassifier, config: Mapping[str, Any]) -> None:
    from custom.data.ag_news import CLASSES

    encoder = model.encoder.config
    if _component(config, "data").get("path") == DATA and encoder.num_labels == len(CLASSES):
        encoder.id2label = dict(enumerate(CLASSES))
        encoder.label2id = {name: number for number, name in encoder.id2label.items()}


def _write(model: BertClassifier, weights: Weights, out: Path) -> None:
    """All of it, or nothing."""
    from custom.learning.weights import to_tensors
    from custom.models import bert_classifier

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        copy = Path(temporary) / out.name
        bert_classifier.save_pretrained(model, copy, to_tensors(weights))
        if out.exists():
            out.rmdir()
        copy.rename(out)


def _warning(model: BertClassifier, report: Report, arguments: Mapping[str, Any]) -> str:
    """Of an embedded encoder; jobs from before it was recorded are judged by their weights alone."""
    from custom.models.pretrained import EMBEDDED

    if model.model_name_or_path != EMBEDDED or not (report.dataset or {}).get("encoder_embedded", True):
        return ""
    asked = arguments.get("model_name_or_path")
    instead = "" if asked in (None, EMBEDDED) else f", NOT {asked}, which the sites could not get"
    return f"EMBEDDED ENCODER: a small BERT for trying things out, not pretrained{instead}"


def _usage(model: BertClassifier, out: Path) -> str:
    if model.head is None:
        names = ("AutoModelForSequenceClassification", "AutoTokenizer")
        return "load it with transformers: " + " and ".join(f'{name}.from_pretrained("{out}")' for name in names)
    arguments = f'"{out}", num_classes={model.head.out_features}, pooling="{model.pooling}"'
    return f"transformers has no class for this head; load it with {MODEL}({arguments})"
