"""A person sees that a key is used as it never was: on REST, in the log, in a metric and in the audit."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.e2e.bed import KEYS, Bed, request, tool_call
from tests.e2e.conftest import Start, StoreName
from tests.service import until

MET_SOON = {"api_keys": {"unusual": {"min_refused": 16}}}


def told(bed: Bed) -> Callable[[], Awaitable[bool]]:
    async def is_told() -> bool:
        return any(line["event"] == "unusual_activity" for line in bed.records())

    return is_told


async def test_a_rise_of_refusals_is_told_everywhere(start: Start, store: StoreName, tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    bed = await start(store, **MET_SOON, audit={"file": str(audit)})
    key = await bed.key("mcp:read")
    key_id = f"key_{key[4:16]}"
    assert (await bed.post(request("ping"), key=key)).status_code == 200
    for _ in range(16):
        assert (await bed.post(tool_call("put"), key=key)).status_code == 403
    await until(told(bed))
    [line] = [line for line in bed.records() if line["event"] == "unusual_activity"]
    assert (line["level"], line["account"], line["key"], line["kind"]) == ("warning", "alice", key_id, "refusals")
    assert line["reason"].startswith("16 refused requests in the hour from ")
    metrics = (await bed.admin.get("/metrics")).text
    assert 'sidecar_unusual_activity_total{kind="refusals"} 1.0' in metrics
    assert 'sidecar_unusual_activity_total{kind="burst"} 0.0' in metrics
    shown = (await bed.rest("GET", f"{KEYS}/activity", bed.token())).json()
    [of_key] = shown["keys"]
    assert [(found["kind"], found["reason"]) for found in of_key["unusual"]] == [("refusals", line["reason"])]
    assert (of_key["days"][-1]["requests"], of_key["days"][-1]["refused"], len(of_key["days"])) == (1, 16, 7)
    assert (shown["unusual"], shown["nextCursor"]) == ([], None)

    async def is_recorded() -> bool:
        return '"activity"' in audit.read_text()

    await until(is_recorded)
    [record] = [entry for entry in map(json.loads, audit.read_text().splitlines()) if entry["kind"] == "activity"]
    assert (record["finding"], record["account"], record["key"]) == ("refusals", "alice", key_id)


async def test_use_of_a_key_after_its_rotation_is_told(start: Start, store: StoreName) -> None:
    bed = await start(store)
    token = bed.token()
    old = (await bed.rest("POST", KEYS, token, {"name": "n"})).json()
    new = (await bed.rest("POST", f"{KEYS}/{old['id']}/rotate", token, {"graceSeconds": 60})).json()
    for key in (old, new, old):
        assert (await bed.post(request("ping"), key=key["key"])).status_code == 200
    await until(told(bed))
    unusual = {key["id"]: key["unusual"] for key in (await bed.rest("GET", f"{KEYS}/activity", token)).json()["keys"]}
    assert unusual[new["id"]] == []
    assert unusual[old["id"]][0]["reason"] == f"Still used, though {new['id']} replaced it and is in use"


async def test_a_key_that_is_presented_after_it_ended_is_told_and_counted(start: Start) -> None:
    bed = await start()
    token = bed.token()
    old = (await bed.rest("POST", KEYS, token, {"name": "n"})).json()
    await bed.rest("POST", f"{KEYS}/{old['id']}/rotate", token, {"graceSeconds": 0})
    assert (await bed.post(request("ping"), key=old["key"])).status_code == 401
    await until(told(bed))
    ids = [line["key"] for line in bed.records() if line["event"] == "unusual_activity"]
    assert ids == [old["id"]]
    usage = (await bed.rest("GET", f"{KEYS}/{old['id']}/usage", token)).json()
    assert usage["days"][-1]["refused"] == 1
