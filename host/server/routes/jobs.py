"""Jobs: the queue and the history in one list, as the canvas shows them."""

from __future__ import annotations

import asyncio
from uuid import UUID

from aiohttp import web

from ..answers import read_object, refuse
from ..context import Host, host_of
from ..records import STATUSES, Status, detail
from .queue import whole_number

SORTED_BY = ("created_at", "execution_duration")
DIRECTIONS = ("asc", "desc")


async def get_jobs(request: web.Request) -> web.Response:
    query = request.query
    limit, offset = whole_number(request, "limit"), whole_number(request, "offset")
    if limit is not None and limit <= 0:
        refuse(400, "limit must be a positive integer")
    sort_by = query.get("sort_by", "created_at").lower()
    if sort_by not in SORTED_BY:
        refuse(400, f"sort_by must be one of {', '.join(SORTED_BY)}")
    sort_order = query.get("sort_order", "desc").lower()
    if sort_order not in DIRECTIONS:
        refuse(400, f"sort_order must be one of {', '.join(DIRECTIONS)}")
    offset = max(offset or 0, 0)
    jobs, total = await asyncio.to_thread(
        host_of(request).store.page,
        _statuses(query.get("status", "")),
        workflow_id=query.get("workflow_id") or None,
        sort_by=sort_by,
        descending=sort_order == "desc",
        limit=limit,
        offset=offset,
    )
    pagination = {
        "offset": offset,
        "limit": limit,
        "total": total,
        "has_more": offset + len(jobs) < total,
    }
    return web.json_response({"jobs": jobs, "pagination": pagination})


def _statuses(text: str) -> list[Status]:
    """The statuses that a comma-separated list names; all for an empty one. Raises Refusal."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    known: list[Status] = [one for one in STATUSES if not names or str(one) in names]
    if unknown := sorted(set(names) - set(STATUSES)):
        refuse(
            400,
            f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}",
        )
    return known


async def get_job(request: web.Request) -> web.Response:
    job = await asyncio.to_thread(host_of(request).store.get, request.match_info["job_id"])
    if job is None:
        refuse(404, "Job not found")
    return web.json_response(detail(job))


async def cancel_one(request: web.Request) -> web.Response:
    return await _cancel(host_of(request), [request.match_info["job_id"]])


async def cancel_many(request: web.Request) -> web.Response:
    ids = (await read_object(request)).get("job_ids")
    if not isinstance(ids, list):
        refuse(400, "job_ids must be a list")
    invalid = [one if isinstance(one, str) else repr(one) for one in ids if not _is_id(one)]
    if invalid:
        answer = {"error": "job_ids contains invalid id(s)", "invalid_ids": invalid}
        return web.json_response(answer, status=400)
    return await _cancel(host_of(request), ids)


def _is_id(value: object) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value
    except ValueError:
        return False


async def _cancel(host: Host, ids: list[str]) -> web.Response:
    """Takes waiting jobs out of the queue, then stops a running one: a job that started in
    between is still found."""
    dropped = await asyncio.to_thread(host.store.drop_pending, ids)
    stopped = await asyncio.to_thread(lambda: [one for one in ids if host.worker.interrupt(one)])
    if dropped:
        host.worker.say_status()
    return web.json_response({"cancelled": bool(dropped or stopped)})


ROUTES = (
    web.get("/jobs", get_jobs),
    web.post("/jobs/cancel", cancel_many),
    web.get("/jobs/{job_id}", get_job),
    web.post("/jobs/{job_id}/cancel", cancel_one),
)
