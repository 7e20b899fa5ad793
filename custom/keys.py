# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Names under which facts travel between sites and server, beside FLARE's own."""

TRAIN_METRICS = "train_metrics"  # meta of a `train` result: {"train_loss": float}
DATA_INFO = "data_info"  # meta of a `get_weights` result: SiteData.describe()
SAMPLES = "samples"  # meta of a `get_weights` result: {split: number of samples}
SPLIT = "split"  # header of a `validate` task: which split to score on
ROUNDS = "rounds"  # header of a `fine_tune` task: training rounds the model has behind it
TRAINING = "training"  # in a site's local_model.pt: how it was trained, over all rounds so far
