"""A service with FastAPI: what is in production, which metrics there are, and storing a metric.

pip install mlops-db fastapi uvicorn && uvicorn app:app
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel

from mlops_db import MlopsDbError, get_db_manager
from mlops_db.errors import InvalidValueError
from mlops_db.storage.model_versions import ModelVersion


class Measurement(BaseModel):
    """A value of a metric, and the moment that it is about."""

    metric_type: str
    metric_name: str
    value: float
    timestamp: AwareDatetime


class Point(BaseModel):
    """A stored value; None if it could not be computed."""

    timestamp: datetime
    value: float | None


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Take requests once the migration has run; when the service ends, close the connections."""
    db = get_db_manager()
    await run_in_threadpool(db.wait_until_ready, timeout=60)
    yield
    db.close()


app = FastAPI(lifespan=lifespan)


@app.exception_handler(InvalidValueError)
async def refused(_: Request, error: InvalidValueError) -> JSONResponse:
    """A value that the database does not take."""
    return JSONResponse({"error": str(error)}, status_code=422)


@app.exception_handler(MlopsDbError)
async def failed(_: Request, error: MlopsDbError) -> JSONResponse:
    """Anything else: 503 if the same request may succeed in a moment."""
    return JSONResponse({"error": str(error)}, status_code=503 if error.retryable else 500)


@app.get("/health")
async def health() -> str:
    """Whether the server answers, for a load balancer; not in the threads of the requests, which may all be busy."""
    await asyncio.to_thread(get_db_manager().ping, timeout=2)
    return "ok"


@app.get("/models/{model_name}/production")
def version_in_production(model_name: str) -> ModelVersion:
    """The version in production."""
    version = get_db_manager().models.production(model_name)
    if version is None:
        raise HTTPException(404, f"no version of {model_name} is in production")
    return version


@app.get("/models/{model_name}/metrics")
def metrics(model_name: str) -> dict[str, str]:
    """The health of each series: ok, low, high, failed, stale, missing or drifted."""
    states = get_db_manager().monitoring.latest(model_name)
    return {f"{state.metric_type}/{state.metric_name}": state.health for state in states}


@app.get("/models/{model_name}/metrics/{metric_type}/{metric_name}")
def history(
    model_name: str, metric_type: str, metric_name: str, days: Annotated[int, Query(ge=1, le=366)] = 7
) -> list[Point]:
    """The values of a series in the last days, the newest first."""
    since = datetime.now(timezone.utc) - timedelta(days=days)
    rows = get_db_manager().monitoring.history(metric_type, metric_name, model_name=model_name, since=since)
    return [Point(timestamp=row.timestamp, value=row.metric_value) for row in rows]


@app.put("/models/{model_name}/metrics", status_code=204)
def store(model_name: str, measurement: Measurement) -> None:
    """Store a value. A client that repeats the request replaces it."""
    row = {
        "metric_type": measurement.metric_type,
        "metric_name": measurement.metric_name,
        "metric_value": measurement.value,
        "model_name": model_name,
    }
    get_db_manager().monitoring.log_many([row], replace=measurement.timestamp)
