# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Tasks `get_weights` and `submit_model`: the site's first and last model, for the server."""

from __future__ import annotations

import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from custom.data.remarks import left_out_line, remarks_of
from custom.data.site_data import Counted
from custom.data.writers import WriterSiteData
from custom.errors import BundleError
from custom.executors.site_task import Site, SiteTask
from custom.executors.trainer import local_model_path
from custom.keys import DATA_INFO, DATA_NOTES, DATA_WARNINGS, LEFT_OUT, SAMPLES
from custom.learning.train_writers import check_trainable
from custom.learning.weights import Weights, get_weights, load_weights


class ModelProvider(SiteTask):
    """Hands out the model as it was built, with facts about the site's data, and later the site's last model."""

    def __init__(self, data: str = "data", model: str = "model", seed: str = "seed", device: str = "auto") -> None:
        super().__init__(data, model, seed, device)
        self._built: Weights = {}

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Keeps the model as it was built: later, the component holds what the site has made of it."""
        super().handle_event(event_type, fl_ctx)
        if event_type == EventType.START_RUN:
            model = fl_ctx.get_engine().get_component(self.model_id)
            self._built = get_weights(model) if model is not None else {}

    def run(self, task_name: str, shareable: Shareable, site: Site, fl_ctx: FLContext, abort: Signal) -> Shareable:
        """`submit_model` sends the last local model; any other task name, the initial one."""
        if task_name == AppConstants.TASK_SUBMIT_MODEL:
            path = local_model_path(site.run_dir)
            if not path.is_file():
                raise BundleError(
                    "has no model to submit: it has not trained in this job", code="nothing-trained", site=site.name
                )
            return DXO(DataKind.WEIGHTS, data=load_weights(path)).to_shareable()
        info = site.data.describe()
        check_fits(site)
        if isinstance(site.data, WriterSiteData):
            check_trainable(site.model)
        samples = {split: site.data.size(split) for split in ("train", "validation", "test")}
        if isinstance(site.data, Counted):
            samples = site.data.counts()
        if info["embedded"]:
            self.log_warning(fl_ctx, f"trains on embedded data: {info['dataset']}")
        remarks = remarks_of(site.data)
        if remarks.left_out:
            self.log_warning(fl_ctx, f"data left out: {left_out_line(remarks.left_out)}")
        for warning in remarks.warnings:
            self.log_warning(fl_ctx, f"data: {warning}")
        meta = {
            DATA_INFO: info,
            SAMPLES: samples,
            LEFT_OUT: remarks.left_out,
            DATA_WARNINGS: remarks.warnings,
            DATA_NOTES: remarks.notes,
            MetaKey.NUM_STEPS_CURRENT_ROUND: site.data.size("train"),
        }
        return DXO(DataKind.WEIGHTS, data=self._built, meta=meta).to_shareable()


@torch.inference_mode()
def check_fits(site: Site) -> None:
    """Runs the model on one sample, since what does not fit would else be found out in the first round.

    Raises:
        BundleError: the model does not take the site's data, or has fewer outputs than they have classes.
    """
    info = site.data.describe()
    sample = next(iter(site.data.batches("train", 1, site.device)), None)
    if sample is None:
        return
    try:
        outputs = site.model.eval()(sample[0]).shape[-1]
    except RuntimeError as error:
        raise BundleError(
            code="model-unfit",
            site=site.name,
            key="model",
            expected=f"a model for {info['dataset']}, samples of shape {info['input_shape']}",
            got=f"{type(site.model).__name__} ({str(error).splitlines()[0]})",
            remedy="choose another model or dataset",
        ) from error
    if outputs < info["num_classes"]:
        raise BundleError(
            code="model-unfit",
            site=site.name,
            key="num_classes",
            expected=f"a model with {info['num_classes']} outputs, as many as {info['dataset']} has classes",
            got=outputs,
            remedy=f"set num_classes={info['num_classes']}",
        )
