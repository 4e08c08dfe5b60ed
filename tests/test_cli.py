"""The command line: what it answers, in words and in JSON, and how it exits."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import main
from sidecar.cli.grammar import read_moment
from sidecar.policy import apikeys

UNKNOWN = "key_0123456789AB"
CONFIG = """\
api_keys: {bcrypt_cost: 4, max_per_account: 3}
store: {url: "sqlite:///keys/sidecar.db"}
jwt:
  issuers:
    - {issuer: "https://idp.example", audiences: ["https://mcp.example/mcp"]}
"""


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


Run = Callable[..., Ran]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run commands in an empty directory of their own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ran:
        code = main(list(arguments))
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def sidecar(bare: Run) -> Run:
    Path("config.yaml").write_text(CONFIG)
    return bare


def create(sidecar: Run, account: str = "acme", *more: str) -> dict[str, Any]:
    ran = sidecar("keys", "create", "--account", account, "--name", "report", "--json", *more)
    assert (ran.code, ran.err) == (0, "")
    document: dict[str, Any] = ran.document
    return document


# The command as a process


def process(directory: Path, *arguments: str) -> Ran:
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_as_a_process_it_does_what_it_says_and_exits_0(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    made = process(tmp_path, "keys", "create", "--account", "acme", "--name", "report", "--json")
    assert (made.code, made.err) == (0, "")
    listed = process(tmp_path, "keys", "list", "--json")
    assert [key["id"] for key in listed.document["keys"]] == [made.document["id"]]


def test_as_a_process_it_exits_1_when_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    ran = process(tmp_path, "keys", "show", UNKNOWN, "--json")
    assert (ran.code, ran.out, ran.error["errorType"]) == (1, "", "NOT_FOUND")


def test_as_a_process_it_exits_2_when_it_is_misused(tmp_path: Path) -> None:
    ran = process(tmp_path, "keys", "create")
    assert (ran.code, ran.out) == (2, "")
    assert "--account" in ran.err


def test_as_a_process_it_stands_a_reader_that_leaves_early(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    reading, writing = os.pipe()
    os.close(reading)
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "keys", "list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["keys"],
        ["tokens"],
        ["unknown"],
        ["keys", "unknown"],
        ["keys", "create"],
        ["keys", "create", "--account", "a"],
        ["keys", "create", "--acc", "a", "--name", "n"],
        ["keys", "create", "--account", "a", "--name", "n", "--expires-in-days", "ten"],
        ["keys", "create", "--account", "a", "--name", "n", "--key", "mcp_x"],
        ["keys", "show"],
        ["keys", "revoke"],
        ["keys", "rotate", UNKNOWN, "--grace-seconds", "1h"],
        ["keys", "list", "acme"],
        ["tokens", "revoke"],
        ["tokens", "revoke", "--issuer", "https://idp.example"],
        ["tokens", "revoke", "--jti", "1"],
        ["tokens", "revoke", "--issuer", "https://idp.example", "--jti", "1", "--account", "acme"],
        ["tokens", "revoke", "--issuer", "https://idp.example", "--jti", "1", "--before", "1"],
        ["tokens", "revoke", "--account", "acme", "--jti", "1"],
        ["tokens", "revoke", "--account", "acme", "--before", "yesterday"],
        ["serve", "--listen", "8080"],
        ["serve", "--listen", ":8080"],
        ["serve", "--json"],
        ["serve", "--config"],
        ["check-config", "config.yaml"],
    ],
)
def test_wrong_usage_exits_2_and_says_how_it_is_done(sidecar: Run, arguments: list[str]) -> None:
    ran = sidecar(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "usage: sidecar" in ran.err


def test_wrong_usage_is_json_where_json_was_asked_for(sidecar: Run) -> None:
    ran = sidecar("keys", "create", "--json")
    assert (ran.code, ran.out, ran.error["errorType"]) == (2, "", "WRONG_USAGE")


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["demo"],
        ["check-config"],
        *(["keys", act] for act in ("create", "list", "show", "revoke", "rotate", "usage")),
        ["tokens", "revoke"],
    ],
)
def test_every_command_explains_itself_with_an_example(bare: Run, arguments: list[str]) -> None:
    ran = bare(*arguments, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"example:\n  sidecar {' '.join(arguments)}" in ran.out
    assert "--config" in ran.out
    assert ran.out.count(".") > 1


def test_the_command_itself_names_its_commands(bare: Run) -> None:
    ran = bare("--help")
    assert ran.code == 0
    assert all(name in ran.out for name in ("serve", "demo", "check-config", "keys", "tokens"))


# Settings


@pytest.mark.parametrize("place", [0, 1, 2, 4])
def test_config_may_stand_anywhere(bare: Run, place: int, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(CONFIG)
    arguments = ["keys", "list", "--account", "acme", "--json"]
    arguments[place:place] = ["--config", "other.yaml"]
    assert bare(*arguments).document == {"keys": [], "nextCursor": None}
    assert (tmp_path / "keys" / "sidecar.db").exists()


def test_a_file_that_was_named_has_to_be_there(bare: Run) -> None:
    ran = bare("keys", "list", "--config", "nowhere.yaml", "--json")
    assert (ran.code, ran.out, ran.error["errorType"]) == (1, "", "INVALID_CONFIG")
    assert "nowhere.yaml" in ran.error["message"]
    assert bare("serve", "--config", "nowhere.yaml").code == 1


def test_without_any_file_the_defaults_apply_and_that_is_said(bare: Run, tmp_path: Path) -> None:
    ran = bare("keys", "list")
    assert (ran.code, ran.out) == (0, "No keys.\n")
    assert "config.yaml" in ran.err
    assert (tmp_path / "data" / "sidecar.db").exists()


def test_unusable_settings_stop_every_command(bare: Run) -> None:
    Path("config.yaml").write_text("listen: {port: eighty}\nworkers: 0\n")
    for arguments in (["keys", "list"], ["keys", "show", UNKNOWN], ["tokens", "revoke", "--account", "a"], ["serve"]):
        ran = bare(*arguments)
        assert (ran.code, ran.out) == (1, "")
        assert "listen.port" in ran.err
        assert "workers" in ran.err


def test_a_file_that_is_not_text_is_refused(bare: Run) -> None:
    Path("config.yaml").write_bytes(b"\xff\xfe")
    assert bare("check-config").code == 1


def test_the_options_of_serve_are_held_to_the_rules_of_the_file(sidecar: Run) -> None:
    for option, value, key in (
        ("--upstream", "ftp://x/", "upstream.url"),
        ("--upstream", "", "upstream.url"),
        ("--listen", "127.0.0.1:99999", "listen.port"),
        ("--listen", "127.0.0.1:http", "listen.port"),
    ):
        ran = sidecar("serve", option, value)
        assert (ran.code, ran.out) == (1, "")
        assert key in ran.err


def test_check_config_shows_what_takes_effect(sidecar: Run) -> None:
    ran = sidecar("check-config")
    assert ran.code == 0
    assert "bcrypt_cost: 4" in ran.out
    assert "default_expiry_days: 90" in ran.out
    assert "warning" in ran.err


def test_check_config_answers_in_json(sidecar: Run) -> None:
    ran = sidecar("check-config", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert set(ran.document) == {"ok", "problems", "settings"}
    assert (ran.document["ok"], ran.document["problems"]) == (True, [])
    assert ran.document["settings"]["api_keys"]["bcrypt_cost"] == 4


def test_check_config_names_what_is_to_be_installed_for_traces(tmp_path: Path) -> None:
    """The packages are there, for other tests; here nobody finds them, as where the extra was left out."""
    (tmp_path / "config.yaml").write_text("# traces\ntracing:\n  otlp_endpoint: http://collector:4318\n")
    script = """if True:
        import sys

        class Absent:
            def find_spec(self, name, path, target=None):
                if name.split(".")[0] == "opentelemetry":
                    raise ModuleNotFoundError(name=name)

        sys.meta_path.insert(0, Absent())
        from sidecar.cli import main
        sys.exit(main(["check-config", "--json"]))
    """
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    (problem,) = json.loads(ran.stdout)["problems"]
    assert (ran.returncode, problem["key"], problem["line"]) == (1, "tracing.otlp_endpoint", 3)
    assert "pip install '.[otel]'" in problem["message"]


def test_check_config_names_every_problem_with_key_and_line(bare: Run) -> None:
    Path("config.yaml").write_text("workers: 0\nlisten:\n  prot: 8080\n")
    ran = bare("check-config", "--json")
    assert (ran.code, ran.err) == (1, "")
    assert (ran.document["ok"], ran.document["settings"]) == (False, None)
    assert [(problem["key"], problem["line"]) for problem in ran.document["problems"]] == [
        ("workers", 1),
        ("listen.prot", 3),
    ]
    assert all(set(problem) == {"key", "line", "message"} for problem in ran.document["problems"])
    plain = bare("check-config")
    assert (plain.code, plain.out) == (1, "")
    assert "listen.prot" in plain.err


def test_check_config_of_no_file_says_so(bare: Run) -> None:
    ran = bare("check-config", "--config", "nowhere.yaml", "--json")
    assert (ran.code, ran.document["ok"]) == (1, False)
    assert "nowhere.yaml" in ran.document["problems"][0]["message"]


def test_secrets_are_hidden_from_the_effective_settings(bare: Run) -> None:
    secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldCBzZWNyZXQ="  # base64 of 40 bytes
    Path("hmac").write_text(secret)
    Path("config.yaml").write_text("identity: {algorithm: hmac-sha256, keys: [{id: a, secret_file: hmac}]}\n")
    for arguments in (["check-config"], ["check-config", "--json"]):
        ran = bare(*arguments)
        assert ran.code == 0
        assert secret not in ran.out + ran.err
        assert "secret secret" not in ran.out + ran.err


# Keys


def test_a_key_is_made_and_shown_once(sidecar: Run, tmp_path: Path) -> None:
    made = create(
        sidecar, "acme", "--scope", "mcp:tools:call", "--scope", "mcp:resources:read", "--expires-in-days", "3"
    )
    assert set(made) == {"id", "key", "name", "scopes", "expiresAt", "createdAt", "warning"}
    assert apikeys.parse(made["key"]).id == made["id"]
    assert made["scopes"] == ["mcp:tools:call", "mcp:resources:read"]
    assert made["key"] not in sidecar("keys", "show", made["id"]).out
    secret = apikeys.parse(made["key"]).secret.encode()
    assert all(secret not in path.read_bytes() for path in (tmp_path / "keys").iterdir())


def test_a_key_is_made_in_words(sidecar: Run) -> None:
    ran = sidecar("keys", "create", "--account", "acme", "--name", "Zürich")
    assert (ran.code, ran.err) == (0, "")
    assert apikeys.WARNING in ran.out
    assert "mcp_" in ran.out
    assert "Zürich" in ran.out


@pytest.mark.parametrize(
    "wrong",
    [
        ["--account", "a b", "--name", "n"],
        ["--account", "", "--name", "n"],
        ["--account", "acme", "--name", ""],
        ["--account", "acme", "--name", "a\nb"],
        ["--account", "acme", "--name", "\udcff"],
        ["--account", "acme", "--name", "n", "--scope", "mcp:everything"],
        ["--account", "acme", "--name", "n", "--expires-in-days", "0"],
        ["--account", "acme", "--name", "n", "--expires-in-days", "-1"],
    ],
)
def test_an_impossible_key_is_refused(sidecar: Run, wrong: list[str]) -> None:
    ran = sidecar("keys", "create", *wrong, "--json")
    assert (ran.code, ran.out, ran.error["errorType"]) == (1, "", "INVALID_REQUEST")


def test_too_many_keys_are_refused(sidecar: Run) -> None:
    for _ in range(3):
        create(sidecar)
    ran = sidecar("keys", "create", "--account", "acme", "--name", "report", "--json")
    assert (ran.code, ran.error["errorType"]) == (1, "CONFLICT")


def test_keys_are_listed_by_account_or_all(sidecar: Run) -> None:
    mine, theirs = create(sidecar), create(sidecar, "zenith")
    one = sidecar("keys", "list", "--account", "acme", "--json").document
    assert [key["id"] for key in one["keys"]] == [mine["id"]]
    assert "account" not in one["keys"][0]
    every = sidecar("keys", "list", "--json").document
    assert [(key["account"], key["id"]) for key in every["keys"]] == [("acme", mine["id"]), ("zenith", theirs["id"])]
    assert every["nextCursor"] is None
    table = sidecar("keys", "list").out
    assert all(word in table for word in (mine["id"], theirs["id"], "acme", "zenith", "active", "mcp:read", "never"))
    assert len(table.splitlines()) == 3


def test_a_key_is_shown(sidecar: Run) -> None:
    made = create(sidecar)
    shown = sidecar("keys", "show", made["id"], "--json").document
    assert (shown["prefix"], shown["status"], shown["createdBy"]) == (made["key"][:16], "active", "cli")
    words = sidecar("keys", "show", made["id"])
    assert words.code == 0
    assert "acme" in words.out


def test_a_key_is_revoked_twice_as_well_as_once(sidecar: Run) -> None:
    made = create(sidecar)
    for _ in range(2):
        assert sidecar("keys", "revoke", made["id"], "--json").document == {}
    assert sidecar("keys", "show", made["id"], "--json").document["status"] == "revoked"
    assert sidecar("keys", "revoke", made["id"]).code == 0


def test_a_key_is_rotated_once(sidecar: Run) -> None:
    made = create(sidecar, "acme", "--scope", "mcp:full")
    new = sidecar("keys", "rotate", made["id"], "--grace-seconds", "60", "--json").document
    assert set(new) == set(made)
    assert (new["scopes"], new["name"]) == (["mcp:full"], "report")
    assert sidecar("keys", "show", made["id"], "--json").document["replacedBy"] == new["id"]
    again = sidecar("keys", "rotate", made["id"], "--json")
    assert (again.code, again.error["errorType"]) == (1, "CONFLICT")
    words = sidecar("keys", "rotate", new["id"], "--grace-seconds", "0")
    assert words.code == 0
    assert f"{new['id']} works until" in words.out
    wrong = sidecar("keys", "rotate", new["id"], "--grace-seconds", "-1", "--json")
    assert (wrong.code, wrong.error["errorType"]) == (1, "INVALID_REQUEST")


def test_usage_is_shown(sidecar: Run) -> None:
    made = create(sidecar)
    usage = sidecar("keys", "usage", made["id"], "--json").document
    assert (usage["id"], len(usage["hours"]), len(usage["days"])) == (made["id"], 48, 30)
    assert sidecar("keys", "usage", made["id"]).code == 0


@pytest.mark.parametrize("act", ["show", "revoke", "rotate", "usage"])
@pytest.mark.parametrize("key_id", [UNKNOWN, "nonsense", ""])
def test_an_unknown_key_is_a_failure(sidecar: Run, act: str, key_id: str) -> None:
    ran = sidecar("keys", act, key_id, "--json")
    assert (ran.code, ran.out, ran.error["errorType"]) == (1, "", "NOT_FOUND")
    assert sidecar("keys", act, key_id).err.startswith("sidecar: ")


@pytest.mark.parametrize("act", ["show", "revoke", "rotate", "usage"])
def test_who_gives_a_key_where_its_id_is_wanted_is_told_the_id(sidecar: Run, act: str) -> None:
    made = create(sidecar)
    ran = sidecar("keys", act, made["key"])
    assert ran.code == 1
    assert f"commands want its id: {made['id']}" in ran.err
    assert made["key"] not in ran.err
    assert sidecar("keys", "show", made["id"], "--json").document["status"] == "active"


# Tokens


def test_an_account_is_revoked_with_its_keys(sidecar: Run) -> None:
    made, other = create(sidecar), create(sidecar, "zenith")
    ran = sidecar("tokens", "revoke", "--account", "acme", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert (ran.document["account"], ran.document["keysRevoked"]) == ("acme", 1)
    assert sidecar("keys", "show", made["id"], "--json").document["status"] == "revoked"
    assert sidecar("keys", "show", other["id"], "--json").document["status"] == "active"
    assert "its tokens, and 1 key." in sidecar("tokens", "revoke", "--account", "zenith").out
    assert "its tokens, and 0 keys." in sidecar("tokens", "revoke", "--account", "zenith").out


def test_an_account_is_revoked_up_to_a_moment(sidecar: Run) -> None:
    made = create(sidecar)
    ran = sidecar("tokens", "revoke", "--account", "acme", "--before", "2026-01-01T00:00:00+02:00", "--json")
    assert ran.document == {"account": "acme", "before": "2025-12-31T22:00:00Z", "keysRevoked": 0}
    assert sidecar("keys", "show", made["id"], "--json").document["status"] == "active"
    assert sidecar("tokens", "revoke", "--account", "acme", "--before", "1767225600").code == 0


@pytest.mark.parametrize("arguments", [["--account", "a b"], ["--account", "acme", "--before", "99999999999"]])
def test_an_impossible_revocation_is_refused(sidecar: Run, arguments: list[str]) -> None:
    ran = sidecar("tokens", "revoke", *arguments, "--json")
    assert (ran.code, ran.out, ran.error["errorType"]) == (1, "", "INVALID_REQUEST")


def test_one_token_is_revoked(sidecar: Run) -> None:
    ran = sidecar("tokens", "revoke", "--issuer", "https://idp.example", "--jti", "t-1", "--json")
    assert (ran.code, ran.document) == (0, {"issuer": "https://idp.example", "jti": "t-1"})
    assert sidecar("tokens", "revoke", "--issuer", "https://idp.example", "--jti", "t-1").code == 0


def test_a_token_of_an_issuer_that_nobody_configured_is_a_failure(sidecar: Run) -> None:
    ran = sidecar("tokens", "revoke", "--issuer", "https://idp.example/", "--jti", "t-1", "--json")
    assert (ran.code, ran.out) == (1, "")
    assert "https://idp.example" in ran.error["message"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0", 0.0),
        ("1795442400", 1_795_442_400.0),
        ("1795442400.5", 1_795_442_400.5),
        ("2026-11-23T14:00:00Z", 1_795_442_400.0),
        ("2026-11-23T15:00:00.250+01:00", 1_795_442_400.25),
    ],
)
def test_a_moment_is_rfc_3339_or_unix_seconds(text: str, moment: float) -> None:
    assert read_moment(text) == moment


@pytest.mark.parametrize(
    "text",
    ["", "now", "-1", "1e9", "nan", "inf", "\u0661", "2026-11-23", "2026-11-23T14:00:00", "2026-W48-1"],
)
def test_no_other_moment_is_guessed(sidecar: Run, text: str) -> None:
    assert sidecar("tokens", "revoke", "--account", "acme", f"--before={text}").code == 2


# Serving


def test_the_demo_says_which_packages_it_lacks(sidecar: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)  # as if it were not installed
    ran = sidecar("demo")
    assert (ran.code, ran.out) == (1, "")
    assert "mcp-sidecar[demo]" in ran.err


def test_a_port_that_is_taken_is_a_failure_in_words(sidecar: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (tmp_path / "config.yaml").write_text(CONFIG + "admin: {port: 0}\n")
        ran = process(tmp_path, "serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert ran.code == 1
    assert "Traceback" not in ran.err


def test_who_ends_something_in_a_store_that_is_only_now_made_is_told(sidecar: Run, tmp_path: Path) -> None:
    """An emergency, and the wrong directory: it must not look done."""
    ran = sidecar("tokens", "revoke", "--account", "acme")
    assert f"there is no store at {tmp_path}" in ran.err
    assert "no running sidecar hears of this" in ran.err
    assert sidecar("tokens", "revoke", "--account", "acme").err == ""
