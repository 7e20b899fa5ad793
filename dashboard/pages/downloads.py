# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Files of a job, behind the same login as the pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, PlainTextResponse, Response

from bundle.report.model import Report
from custom.errors import BundleError
from dashboard.tables import to_csv
from dashboard.web import UNSAFE, Web
from dashboard.words import short

NOT_FOUND, UNPROCESSABLE, UNAVAILABLE = 404, 422, 503


def add_routes(app: FastAPI, web: Web) -> None:
    """Adds `/session/ID/model`, `best-model`, `metrics.json` and `rounds.csv`."""

    @app.get("/session/{job_id}/model")
    async def model(job_id: str) -> Response:
        return await _answer(web, job_id, "model.pt", lambda: web.flare.model_file(job_id))

    @app.get("/session/{job_id}/best-model")
    async def best_model(job_id: str) -> Response:
        return await _answer(web, job_id, "best_model.pt", lambda: web.flare.model_file(job_id, best=True))

    @app.get("/session/{job_id}/metrics.json")
    async def metrics(job_id: str) -> Response:
        return await _answer(web, job_id, "metrics.json", lambda: _json(web.flare.report(job_id)))

    @app.get("/session/{job_id}/rounds.csv")
    async def rounds(job_id: str) -> Response:
        return await _answer(web, job_id, "rounds.csv", lambda: to_csv(web.flare.report(job_id)))


async def _answer(web: Web, job_id: str, name: str, make: Callable[[], Path | str]) -> Response:
    """The file; only of a job that FLARE's store has, so an id is never taken for a path."""
    snapshot = web.flare.snapshot()
    job = snapshot.job(job_id)
    if job is None and not snapshot.taken:
        return PlainTextResponse(snapshot.problem or "FLARE has not answered yet; try again.", UNAVAILABLE)
    if job is None:
        return PlainTextResponse("There is no such job.", NOT_FOUND)
    try:
        made = await run_in_threadpool(make)
    except BundleError as error:
        return PlainTextResponse(str(error), UNPROCESSABLE)
    file_name = UNSAFE.sub("_", f"{job.name}-{short(job_id)}-{name}")
    if isinstance(made, Path):
        return FileResponse(made, filename=file_name, media_type="application/octet-stream")
    kind = "application/json" if name.endswith(".json") else "text/csv"
    return Response(made, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{file_name}"'})


def _json(report: Report) -> str:
    return json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n"
