# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The first global model, from the sites or from a file: FLARE's InitializeGlobalWeights, made safe.

FLARE's own (nvflare.app_common.workflows.initialize_global_weights) compares nothing, waits for ever for a site that
does not exist, and is ignored without a word when the persistor holds a model. The arguments are FLARE's, and more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.learnable_persistor import LearnablePersistor
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants

from controllers.collect import Replies, check_seconds, collect
from custom import progress
from custom.checks.agreement import (
    check_finite,
    check_not_empty,
    check_remarks,
    check_same_data,
    check_same_model,
    check_samples,
    check_weights,
    odd_ones,
)
from custom.checks.start_model import fit_to_sites
from custom.data.remarks import left_out_line
from custom.errors import BundleError
from custom.keys import DATA_INFO, DATA_NOTES, LEFT_OUT, SAMPLES, WARNINGS
from custom.learning.weights import Weights, load_weights

METHODS = ("first", "client", "random", "average")


class InitializeGlobalWeights(Controller):
    """Asks every site for its initial weights, compares them, and makes one model of them the global one.

    Args:
        task_name: the task that the sites answer with their weights and facts about their data.
        min_responses_required: sites that must answer; 0 means all but those that are lost meanwhile, of which there
            may be as many as `min_clients` of the job's meta.json allows.
        wait_time_after_min_received: seconds to wait for the others after that many have.
        task_timeout: seconds after which a site that has not answered counts as absent; FLARE's default is for ever. By
            then the server must know of a lost site, after `heart_beat_timeout` and NVFLARE_DEAD_CLIENT_GRACE_PERIOD.
        weights_prop_name: where in the context the model is put for the next workflow.
        weight_method: `first` reply to arrive; that of one `client`; of a `random` site, drawn with `draw_seed`; or the
            `average`, weighted by training samples. Where more than half of the sites sent the same values, `first`
            and `random` choose among these.
        weights_client_name: the site for `client`; with other methods a site or a list of them to choose among.
        draw_seed: seed of `random`.
        initial_model: start from this file instead (relative to the job's app folder, where `bundle export --set
            initial_model=...` puts it, or absolute), after the same comparison with the sites.
        persistor_id: the persistor of the training workflow, which must not hold a model; empty if there is none.
    """

    def __init__(
        self,
        task_name: str = AppConstants.TASK_GET_WEIGHTS,
        min_responses_required: int = 0,
        wait_time_after_min_received: int = 0,
        task_timeout: int = 1200,
        weights_prop_name: str = AppConstants.GLOBAL_MODEL,
        weight_method: str = "first",
        weights_client_name: str | list[str] | None = None,
        draw_seed: int = 0,
        initial_model: str = "",
        persistor_id: str = "persistor",
    ) -> None:
        super().__init__(task_check_period=0.05)
        self.task_name, self.task_timeout = task_name, task_timeout
        self.min_responses_required = min_responses_required
        self.wait_time_after_min_received = wait_time_after_min_received
        self.weights_prop_name, self.weight_method = weights_prop_name, weight_method
        self.names = [weights_client_name] if isinstance(weights_client_name, str) else list(weights_client_name or [])
        self.draw_seed, self.initial_model, self.persistor_id = draw_seed, initial_model, persistor_id

    def check(self) -> None:
        """Looks at the settings.

        Raises:
            BundleError: one is out of range.
        """
        if self.weight_method not in METHODS:
            expected = f"one of {', '.join(METHODS)}"
            raise BundleError(
                code="setting-value", key="weight_method", expected=expected, got=repr(self.weight_method)
            )
        if self.weight_method == "client" and len(self.names) != 1:
            raise BundleError(
                code="setting-value", key="weights_client_name", expected="the name of one site", got=self.names
            )
        if type(self.min_responses_required) is not int or self.min_responses_required < 0:
            expected, got = "a whole number of at least 0", repr(self.min_responses_required)
            raise BundleError(code="setting-value", key="min_responses_required", expected=expected, got=got)
        check_seconds(1, task_timeout=self.task_timeout)
        check_seconds(0, wait_time_after_min_received=self.wait_time_after_min_received)

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Finds at once what can be found without the sites."""
        try:
            self.check()
            self._check_sites(fl_ctx)
            self._check_persistor(fl_ctx)
            self._file = load_weights(self._file_path(fl_ctx)) if self.initial_model else None
        except BundleError as error:
            self.system_panic(error.coded(), fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Asks, compares, chooses, and leaves the model in the context."""
        if abort_signal.triggered:  # FLARE comes here even when start_controller has ended the job
            return
        replies = collect(
            self,
            self.task_name,
            Shareable(),
            fl_ctx,
            abort_signal,
            kind=DataKind.WEIGHTS,
            timeout_s=self.task_timeout,
            min_responses=self.min_responses_required,
            wait_after_min_s=self.wait_time_after_min_received,
        )
        if abort_signal.triggered:
            return
        try:
            self._compare(replies)
            source, weights = self._choose(replies)
        except BundleError as error:
            self.system_panic(error.coded(), fl_ctx)
            return
        fl_ctx.set_prop(self.weights_prop_name, make_model_learnable(weights, {}), private=True, sticky=True)
        self._report(replies, source, fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to stop."""

    def process_result_of_unknown_task(self, *args: object) -> None:
        """A reply that comes too late is dropped."""

    def _check_sites(self, fl_ctx: FLContext) -> None:
        sites = sorted(client.name for client in self._engine.get_clients())
        for name in self.names:
            if name not in sites:
                raise BundleError(
                    code="setting-value",
                    key="weights_client_name",
                    expected=f"a site of this job ({', '.join(sites)})",
                    got=name,
                    remedy="name one of them, or choose another weight_method",
                )
        if self.min_responses_required > len(sites):
            raise BundleError(
                code="setting-value",
                key="min_responses_required",
                expected=f"at most {len(sites)} sites",
                got=self.min_responses_required,
            )

    def _check_persistor(self, fl_ctx: FLContext) -> None:
        if not self.persistor_id:
            return
        persistor = self._engine.get_component(self.persistor_id)
        if not isinstance(persistor, LearnablePersistor):
            raise BundleError(
                code="job-component",
                key="persistor_id",
                expected="the id of the persistor that ScatterAndGather uses, or an empty string if it uses none",
                got=repr(self.persistor_id),
            )
        held = persistor.load(fl_ctx)
        if held is not None and not held.is_empty():
            raise BundleError(
                "the persistor already holds a model, and training would start from it and not from the sites",
                code="job-component",
                key=self.persistor_id,
                remedy="take model and source_ckpt_file_full_name out of its arguments; "
                "to start from a file, set initial_model of this workflow",
            )

    def _file_path(self, fl_ctx: FLContext) -> Path:
        return Path(fl_ctx.get_prop(FLContextKey.APP_ROOT)) / self.initial_model

    def _compare(self, replies: Replies) -> None:
        needed = self.min_responses_required or len(self._engine.get_clients()) - len(replies.lost)
        if len(replies.results) < needed:
            raise BundleError(
                f"{len(replies.results)} of {needed} sites sent their initial weights ({replies.reasons()})",
                code="too-few-sites",
                key=self.task_name,
                remedy="correct what is wrong there or restart these sites, or lower min_responses_required; a site "
                "that is still downloading its data needs a longer task_timeout, or `python -m bundle data` beforehand",
            )
        ordered = sorted(replies.results.items())
        first_name, first = ordered[0]
        for name, reply in ordered:
            check_weights(name, reply.data, _info(reply))
            check_not_empty(name, reply.data)
            check_finite(name, reply.data)
            check_samples(
                name, reply.get_meta_prop(SAMPLES, {}), reply.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 0)
            )
            left_out, *texts = (reply.get_meta_prop(key) for key in (LEFT_OUT, WARNINGS, DATA_NOTES))
            check_remarks(name, left_out or {}, *(text or [] for text in texts))
            check_same_data(first_name, _info(first), name, _info(reply))
            check_same_model(first_name, first.data, name, reply.data)
        self._odd = set() if self._file else odd_ones({site: reply.data for site, reply in ordered})
        if self._file is not None:
            check_finite(self.initial_model, self._file)
            self._file, self._fitted = fit_to_sites(f"initial_model {self.initial_model}", self._file, first.data)

    def _choose(self, replies: Replies) -> tuple[str, Weights]:
        if self._file is not None:
            return self.initial_model, self._file
        candidates = {site: dxo for site, dxo in replies.results.items() if not self.names or site in self.names}
        if not candidates:
            raise BundleError(
                "the site whose weights were wanted did not send any: "
                + "; ".join(f"{n}: {replies.errors.get(n, 'no reply')}" for n in self.names),
                code="too-few-sites",
                key="weights_client_name",
            )
        if self.weight_method == "average":
            return ", ".join(sorted(candidates)), average(candidates)
        if not self.names and len(self._odd) < len(candidates):
            candidates = {site: dxo for site, dxo in candidates.items() if site not in self._odd}
        site = next(iter(candidates))  # arrival order; the only one for `client`
        if self.weight_method == "random":
            site = str(np.random.default_rng(self.draw_seed).choice(sorted(candidates)))
        return site, candidates[site].data

    def _report(self, replies: Replies, source: str, fl_ctx: FLContext) -> None:
        ordered = sorted(replies.results.items())
        info = _info(ordered[0][1])
        method = "initial_model" if self._file is not None else self.weight_method
        self.log_info(
            fl_ctx,
            f"global model initialised ({method}) from {source}; {len(ordered)} sites agree on {info['dataset']}",
        )
        self._warn(replies, fl_ctx)
        if self._odd:
            then = (
                "no model is that of most sites" if len(self._odd) == len(ordered) else "most sites have another model"
            )
            self.log_warning(fl_ctx, f"initial weights that differ: {', '.join(sorted(self._odd))}; {then}")
        for site, reason in sorted(replies.errors.items()):
            self.log_warning(fl_ctx, f"goes on without the initial weights of {site}: {reason}")
        if info.get("embedded"):
            self.log_warning(fl_ctx, f"the sites train on embedded data: {info['dataset']}")
        if info.get("encoder_embedded"):
            self.log_warning(fl_ctx, "the sites train the small embedded encoder, from scratch")
        samples = {site: reply.get_meta_prop(SAMPLES) or {} for site, reply in ordered}
        fl_ctx.set_prop(SAMPLES, samples, private=True, sticky=True)
        left_out, notes = (
            {site: told for site, reply in ordered if (told := reply.get_meta_prop(key))}
            for key in (LEFT_OUT, DATA_NOTES)
        )
        event = {"method": method, "source": source, "dataset": info, "samples": samples}
        progress.append(self._run_dir(fl_ctx), "initialized", **event, left_out=left_out, data_notes=notes)
        for site, counts in left_out.items():
            self.log_warning(fl_ctx, f"{site} left out of its data: {left_out_line(counts)}")

    def _warn(self, replies: Replies, fl_ctx: FLContext) -> None:
        """What the sites found that a reader of the report should know; many sites may say the same."""
        told: dict[str, list[str]] = {}
        for site, reply in sorted(replies.results.items()):
            for warning in reply.get_meta_prop(WARNINGS) or []:
                told.setdefault(warning, []).append(site)
        if self._file is not None and self._fitted:
            told["; ".join(self._fitted)] = [f"initial_model {self.initial_model}"]
        for note, sites in told.items():
            self.log_warning(fl_ctx, f"{', '.join(sites)}: {note}")
            progress.append(self._run_dir(fl_ctx), "warning", reason=f"{', '.join(sites)}: {note}")

    def _run_dir(self, fl_ctx: FLContext) -> Path:
        return Path(self._engine.get_workspace().get_run_dir(fl_ctx.get_job_id()))


def average(replies: dict[str, DXO]) -> Weights:
    """Mean of the sites' weights, weighted by their training samples and summed in name order; integers of the first.

    Raises:
        BundleError: the sites have no samples between them.
    """
    ordered = [replies[site] for site in sorted(replies)]
    shares = np.array([reply.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 0) for reply in ordered], dtype=np.float64)
    if not shares.sum() > 0:
        raise BundleError(
            code="data-too-small", key="weight_method average", expected="sites with training samples", got="0 in all"
        )
    shares /= shares.sum()
    result: Weights = {}
    for key, value in ordered[0].data.items():
        if np.issubdtype(value.dtype, np.floating):
            total = sum(
                share * reply.data[key].astype(np.float64) for share, reply in zip(shares, ordered, strict=True)
            )
            result[key] = np.asarray(total, dtype=value.dtype)
        else:
            result[key] = value
    return result


def _info(reply: DXO) -> dict[str, object]:
    return reply.get_meta_prop(DATA_INFO) or {"dataset": "unknown"}
