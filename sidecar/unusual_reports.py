"""Who hears of what is unusual about the use of keys: the log, the metrics and the audit."""

from __future__ import annotations

from sidecar.edge.http.audited import Audited
from sidecar.edge.telemetry_activity import Activity
from sidecar.policy import apikeys
from sidecar.policy.activity import described
from sidecar.records import Unusual


class UnusualReports:
    """Tells them all. See `activity.UnusualReport`."""

    def __init__(self, telemetry: Activity, audited: Audited) -> None:
        self._telemetry = telemetry
        self._audited = audited

    def unusual(self, account: str, key_id: str, found: Unusual) -> None:
        """Tell of it once."""
        about = {"account": account, "key": key_id or None}
        self._telemetry.unusual({**about, **described(found)})
        since, reason = apikeys.rfc3339(found.since), found.reason
        members = {"act": "unusual_activity", "finding": found.kind, "since": since, "reason": reason}
        self._audited.unusual({**about, "decision": "allowed", **members})
