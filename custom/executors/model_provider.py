# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Tasks `get_weights` and `submit_model`: the site's first and last model, for the server."""

from __future__ import annotations

from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from custom.data.folders import overrides
from custom.data.inspection import check_description, check_samples
from custom.data.remarks import left_out_line, remarks_of
from custom.data.site_data import Counted
from custom.errors import BundleError
from custom.executors.site_task import Site, SiteTask, executors_of
from custom.executors.trainer import local_model_path
from custom.keys import DATA_INFO, DATA_NOTES, LEFT_OUT, SAMPLES, WARNINGS
from custom.learning.rehearsal import check_outputs, undisturbed
from custom.learning.weights import Weights, get_weights, load_weights, travels_as_float32
from custom.panic import fails_next_task


class ModelProvider(SiteTask):
    """Hands out the model as it was built, with facts about the site's data, and later the site's last model."""

    def __init__(self, data: str = "data", model: str = "model", seed: str = "seed", device: str = "auto") -> None:
        super().__init__(data, model, seed, device)
        self._built: Weights = {}

    @fails_next_task
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
        found = self._check(site, fl_ctx)
        info = site.data.describe()
        samples = {split: site.data.size(split) for split in ("train", "validation", "test")}
        if isinstance(site.data, Counted):
            samples = site.data.counts()
        if info["embedded"]:
            self.log_warning(fl_ctx, f"trains on embedded data: {info['dataset']}")
        remarks = remarks_of(site.data, [*overrides(), *found])
        if remarks.left_out:
            self.log_warning(fl_ctx, f"data left out: {left_out_line(remarks.left_out)}")
        for warning in remarks.warnings:
            self.log_warning(fl_ctx, f"{site.name}: {warning}")
        meta = {
            DATA_INFO: {**info, "input_shape": list(info["input_shape"])},
            SAMPLES: samples,
            LEFT_OUT: remarks.left_out,
            WARNINGS: remarks.warnings,
            DATA_NOTES: remarks.notes,
            MetaKey.NUM_STEPS_CURRENT_ROUND: site.data.size("train"),
        }
        return DXO(DataKind.WEIGHTS, data=self._built, meta=meta).to_shareable()

    def _check(self, site: Site, fl_ctx: FLContext) -> list[str]:
        """Whether this site will be able to do its tasks: data, model, and a step of all that trains.

        Returns:
            What the server's log and the report should say of the site.
        """
        check_description(site.data.describe())
        check_samples(site.data)
        with undisturbed(site.model):
            check_outputs(site.model, site.data, site.device)
        notes = ["bfloat16 weights travel as float32"] if travels_as_float32(site.model) else []
        if not site.data.size("train"):
            notes.append("no training samples: this site only scores models")
        for executor in executors_of(fl_ctx):
            notes += executor.rehearse(fl_ctx)
        return notes
