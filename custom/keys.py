# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Names under which facts travel between sites and server, beside FLARE's own."""

TRAIN_METRICS = "train_metrics"  # meta of a `train` result: {"train_loss": float}
DATA_INFO = "data_info"  # meta of a `get_weights` result: SiteData.describe()
SAMPLES = "samples"  # meta of a `get_weights` result: {split: number}, and of writers; at the server, of all sites
LEFT_OUT = "left_out"  # meta of a `get_weights` result: {reason: number}, see custom.data.remarks
WARNINGS = "warnings"  # the same: [sentence], of the site's data, model and training
DATA_NOTES = "data_notes"  # the same: [sentence]
LARGEST_WRITER = "largest_writer"  # in SAMPLES of a site that hosts writers: samples of the one with the most
SPLIT = "split"  # header of a `validate` task: which split to score on
ROUNDS = "rounds"  # header of a `fine_tune` task: training rounds the model has behind it, or None if unknown
TRAINING = "training"  # in a site's local_model.pt: how it was trained, over all rounds so far
WRITERS = "writers"  # header of a training task over writers: places of those drawn, among the site's own
POSITIONS = "positions"  # meta of a sparse result: where its values belong, see custom.compression.wire
TAKEN_ROUND = "taken_round"  # header of a training task: the last round of which this site's update was taken, or -1
EVALUATED = "evaluated"  # meta of such a task's result: means over the site's held-out writers
MODEL_VERSION = "model_version"  # header of a task: the version of its model, see custom.compression.changes
BASE_VERSION = "base_version"  # header of a task that brings changes: the version that they are to be applied to
HELD_VERSION = "held_version"  # public property of a site's context: the version it holds, empty if none
TASK_REFUSED = "task_refused"  # the same, while it answers a task: why it could not use it
ROUNDS_BEFORE = "rounds_before"  # at the server: rounds of the job that this one continues, by workflow
STANDINGS = "standings"  # at the server: how each update of the round stands among the others, by site
