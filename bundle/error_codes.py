# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Catalogue of error codes: what is refused, and why. `python -m bundle.error_codes` prints docs/reference/errors.md."""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """One kind of refusal."""

    refused: str
    why: str


# One line a code, sorted, so that changes to it merge.
# fmt: off
# ruff: noqa: E501
CODES: dict[str, Code] = {
    "certificate-not-valid": Code("A certificate or key that is expired, not yet valid, or not a PEM file", "FLARE and browsers would refuse the connection later, with less to go by"),
    "checkpoint-missing": Code("Resuming a job that left no checkpoint", "There is nothing to continue from"),
    "checkpoint-unusable": Code("A checkpoint of another version or with damaged content", "The continued job would not give the model of the uninterrupted one"),
    "code-not-the-jobs": Code("A run in which Python imported another copy of the job's code, with other content", "The numbers would be those of other code"),
    "command-failed": Code("A command of FLARE or of the bundle that the dashboard started and that failed", "The dashboard shows what it said"),
    "criterion-faulty": Code("A selection criterion that returns NaN, another shape, or other scores at each call", "The entries to send would be arbitrary"),
    "data-damaged": Code("A data file with a wrong checksum, cut short, or of another format", "Part of the data would be wrong or absent"),
    "data-malformed": Code("Rows, labels or users that do not have the documented form", "They would be read as something else"),
    "data-missing": Code("Data that are not where the settings say and cannot be downloaded", "The job would train on other data than asked for"),
    "data-not-finite": Code("Inputs with NaN or infinite values", "All weights would be NaN after one step"),
    "data-too-small": Code("A site, split or writer with too few samples for what is asked", "A split would be empty, or a score meaningless"),
    "device-missing": Code("A device that this machine does not have", "Training would fail at its first batch"),
    "disk-full": Code("Writing to a disk that is full, or beyond a quota", "What is written would be cut off; the earlier file stays"),
    "encoder-missing": Code("A pretrained encoder that is neither a folder here nor on the Hub", "The site would train another encoder"),
    "encoder-unfit": Code("An encoder or tokenizer that cannot be read, or whose parts do not belong together", "It would train on unknown words or random weights"),
    "file-unusable": Code("A file or folder that the operating system does not let a command read or write", "Its own reason is shown"),
    "flare-refuses": Code("A request that the FLARE server refused", "FLARE's reason is shown"),
    "job-class": Code("A class in the job's JSON that does not exist or does not take its arguments", "FLARE would say so only after the job has started, at every site"),
    "job-component": Code("A job without a component that another one needs, or with one of the wrong kind", "The task would fail at every site"),
    "job-links": Code("Links in app/custom that are broken, or text instead of a link", "Code would be missing from the job"),
    "job-malformed": Code("A job whose JSON cannot be read or has another shape than FLARE's", "FLARE would fail with a stack trace"),
    "job-name": Code("A name that FLARE refuses or that would lead out of its folder", "Files would be written elsewhere"),
    "job-not-found": Code("A job that does not exist", "There is nothing to run"),
    "job-state": Code("Something that is only possible while a job runs, or only when it has ended", "It would disturb the job or have no effect"),
    "kit-unusable": Code("A startup kit that is incomplete, of another role, or does not match its certificate", "FLARE could not log in with it"),
    "launch-repeated": Code("The same launch twice", "Two jobs would run instead of one"),
    "metric-unknown": Code("A metric that the job does not report", "Nothing could be selected or compared by it"),
    "model-file-inflated": Code("A file of torch.save that is compressed, or whose tensors repeat their values", "A few megabytes would fill the memory"),
    "model-file-missing": Code("A model file, or a job with a model, that does not exist", "The job would start from other weights"),
    "model-file-unreadable": Code("A model file that is cut short, holds code, or is of an unknown format", "It cannot be loaded safely"),
    "model-mismatch": Code("Weights of another model: other names, shapes or types", "They do not fit the model of the job"),
    "model-unfit": Code("A model that cannot take the data, or has too few outputs", "Training would fail at its first batch"),
    "not-allowed": Code("A request by somebody whose role does not allow it", "The project's authorisation policy says so"),
    "not-exportable": Code("A job whose model cannot be written in the Hugging Face format", "It is not a text classifier of this bundle, or not all of it is there"),
    "not-resumable": Code("A job that cannot be continued", "It has ended, or left too little behind"),
    "not-shared": Code("Sending a personal model whose site keeps it", "share_personal_models is off"),
    "not-writable": Code("A folder that cannot be written to", "Results, caches or models would be lost"),
    "nothing-trained": Code("A model that is asked for before any training", "There is none"),
    "option-value": Code("An option of the command line that is out of range or has no meaning here", "It would be ignored"),
    "output-unusable": Code("An output file or folder that exists, or lies inside its own input", "Something would be overwritten"),
    "package-missing": Code("A Python package that is missing or of another version", "The code needs that version"),
    "password-unusable": Code("A password or password file that is too short, readable by others, or damaged", "Others could log in"),
    "port-unusable": Code("A network port or address that is taken or not available", "The server could not listen there"),
    "reply-malformed": Code("A site's reply that does not have the documented form, or holds counts or names that cannot be", "It is not evaluated, and counts as that site's failure"),
    "result-damaged": Code("A job's archive, or its progress.jsonl, that is damaged or none", "What it holds cannot be trusted"),
    "run-not-found": Code("A folder without a job, or a job ID that is not there", "There is nothing to report"),
    "server-unreachable": Code("A FLARE server that does not answer, or is not the kit's", "No command can be sent"),
    "setting-ambiguous": Code("A key of --set that several components have", "The wrong one might be changed"),
    "setting-syntax": Code("A --set or --grid that is not key=value, or is given twice", "It cannot be told what is meant"),
    "setting-unknown": Code("A key of --set that the job does not have", "It would have no effect"),
    "setting-value": Code("A setting of the wrong type or out of range", "It would fail, or mean something else, at every site"),
    "site-not-in-roster": Code("A task for a site that the job was not started with", "It has no share of the data"),
    "site-state-damaged": Code("A file that a site keeps between rounds or jobs (cache, residual, version) and that is damaged", "Continuing with it would give wrong numbers"),
    "sites-differ-in-data": Code("Sites with different data sets, classes or input shapes", "Their updates cannot be averaged"),
    "sites-differ-in-model": Code("Sites with different models", "Their updates cannot be averaged"),
    "task-malformed": Code("A task without a header that it needs", "Server and site run different versions or configurations"),
    "template-unusable": Code("A workspace template that does not exist, or that FLARE refuses", "No kits can be made from it"),
    "too-few-sites": Code("Fewer sites than the job or its rules need, or sites that are not connected", "The job would wait or end at its first round"),
    "too-few-updates": Code("A round with fewer updates than the robust rule needs", "Its promise would not hold; the model stays as it is"),
    "update-base": Code("Changes of a model to a site that holds another", "They would lead to a third model"),
    "update-count": Code("A sparse update with more values than the tensor has entries", "Its values would land in other places"),
    "update-dtype": Code("An update with a tensor of another type than the model's", "It cannot be averaged"),
    "update-duplicate": Code("A second update of one site in a round", "The site would count twice"),
    "update-extra-key": Code("An update with a tensor that the model does not have", "It is of another model"),
    "update-format": Code("A sparse update that does not have the documented form", "It cannot be decoded"),
    "update-kind": Code("An update of another kind than the job exchanges", "The aggregator would misread it"),
    "update-metrics": Code("Metrics with values that they cannot have (an accuracy of 3, NaN), with names that are not printable text, or too many", "Model selection would be wrong"),
    "update-missing-key": Code("An update without a tensor of the model", "It is of another model"),
    "update-no-data": Code("An update without tensors and with a weight", "It would dilute the others"),
    "update-no-model": Code("An update when there is no global model to compare it with", "It cannot be checked"),
    "update-norm": Code("An update that is far larger than the others", "It would dominate the model"),
    "update-not-finite": Code("An update with NaN or infinite values", "The global model would be lost"),
    "update-positions": Code("A sparse update whose positions cannot be decoded", "Its values would land in other places"),
    "update-resent": Code("An accepted update that arrives again", "It counts once"),
    "update-result": Code("Changes that do not lead to the version of the model that was meant", "Site and server would hold different models"),
    "update-shape": Code("An update with a tensor of another shape", "It is of another model"),
    "update-stale-round": Code("An update of another round", "It was trained on another model"),
    "update-statistics": Code("Running statistics of BatchNorm with a negative variance", "No data have one, and the model would give NaN"),
    "update-unpaired": Code("A sparse update with values and no positions, or the reverse", "It cannot be decoded"),
    "update-version": Code("A sparse update of another version of the wire format", "It cannot be decoded"),
    "update-weight": Code("A weight that is not a number of samples, or more than the site declared", "The site would count too much"),
    "update-whole": Code("A tensor that is sent whole and is of another shape or type", "It is of another model"),
    "weights-not-finite": Code("Initial weights with NaN or infinite values", "No training would repair them"),
    "workspace-unusable": Code("A workspace that is in use, not empty, or that FLARE cannot use", "FLARE would delete or damage what is there"),
}
# fmt: on


def to_markdown() -> str:
    """The reference page of all codes."""
    head = (
        "# What the bundle refuses, and why\n\n"
        "Every refusal ends with its code in brackets, as in `error: ... [data-missing]`. Codes are stable; sentences are "
        "not. This page is written by `python -m bundle.error_codes`.\n\n"
    )
    rows = [f"| `{code}` | {entry.refused} | {entry.why} |" for code, entry in sorted(CODES.items())]
    return head + "\n".join(["| code | what is refused | why |", "| --- | --- | --- |", *rows]) + "\n"


if __name__ == "__main__":
    print(to_markdown(), end="")
