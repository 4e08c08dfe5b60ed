"""The command line beside a running sidecar: what it changes in the store acts on the next request."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.e2e.bed import KEYS, Bed, config_text, request
from tests.e2e.conftest import Start, StoreName


async def works(bed: Bed, key: str) -> bool:
    return (await bed.post(request("ping"), key=key)).status_code == 200


async def run_cli(config_file: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the command as an operator would, beside the running sidecar."""
    command = (sys.executable, "-m", "sidecar", *arguments, "--config", str(config_file))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_the_command_line_works_on_the_running_sidecars_store(
    start: Start, store: StoreName, tmp_path: Path
) -> None:
    bed = await start(store)
    file = tmp_path / "config.yaml"
    file.write_text(config_text(bed.settings))
    status, output, _ = await run_cli(
        file, "keys", "create", "--account", "alice", "--name", "ci", "--scope", "mcp:full", "--json"
    )
    assert status == 0
    created = json.loads(output)
    key = bed.secret(created["key"])
    assert await works(bed, key)
    listed = (await bed.rest("GET", KEYS, bed.token())).json()["keys"]
    assert [(entry["id"], entry["createdBy"]) for entry in listed] == [(created["id"], "cli")]
    status, output, _ = await run_cli(file, "keys", "revoke", created["id"], "--json")
    assert status == 0
    assert not await works(bed, key)
    status, output, errors = await run_cli(file, "keys", "show", "key_000000000000", "--json")
    assert (status, output) == (1, "")
    assert json.loads(errors)["error"]["errorType"] == "NOT_FOUND"


async def test_a_revoked_token_and_a_revoked_account_stop_on_the_next_request(
    start: Start, store: StoreName, tmp_path: Path
) -> None:
    bed = await start(store)
    file = tmp_path / "config.yaml"
    file.write_text(config_text(bed.settings))
    one, other = bed.token(jti="one"), bed.token(jti="other")
    assert (await bed.post(request("ping"), token=one)).status_code == 200
    status, _, errors = await run_cli(file, "tokens", "revoke", "--issuer", bed.issuer.url, "--jti", "one")
    assert (status, errors) == (0, "")
    refused = await bed.post(request("ping"), token=one)
    assert (refused.status_code, refused.json()["error"]["data"]["errorType"]) == (401, "INVALID_TOKEN")
    assert (await bed.post(request("ping"), token=other)).status_code == 200
    key = await bed.key()
    status, _, _ = await run_cli(file, "tokens", "revoke", "--account", "alice")
    assert status == 0
    assert (await bed.post(request("ping"), token=other)).status_code == 401
    assert not await works(bed, key)
    assert (await bed.post(request("ping"), token=bed.token(sub="bob"))).status_code == 200
