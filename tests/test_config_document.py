"""YAML, the environment and the command line: what reaches the rules, and what never does."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sidecar.config import ConfigError, Problem, defaults, load
from sidecar.config import settings as listing
from sidecar.config.reader import UNREADABLE
from tests.config_files import loaded, problems, read_file, refused


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "null", "{}", "\ufefflog:\n", "listen:\naccess:\n"])
def test_an_empty_file_and_empty_sections_mean_the_defaults(text: str) -> None:
    assert loaded(text) == defaults()


@pytest.mark.parametrize("word", ["true", "True", "TRUE"])
def test_true_is_a_boolean_in_yaml_1_2s_spellings(word: str) -> None:
    assert loaded(f"log: {{access: {word}}}").log.access is True


@pytest.mark.parametrize(
    "word", ["yes", "on", "On", "y", "1", "1.0", "'true'", "null", "", "[true]", "{}", "!!bool true"]
)
def test_nothing_else_is_a_boolean(word: str) -> None:
    (place,) = refused(f"\nlog:\n  access: {word}\n")
    assert place in {("log.access", 3), ("", 3)}


@pytest.mark.parametrize(
    "word", ["08080", "8_080", "60:30", "0x1F90", "0o17", "8080.0", "8e3", "'8080'", "true", "null", ".inf", "1" * 5000]
)
def test_a_whole_number_is_written_in_decimal_digits_alone(word: str) -> None:
    assert refused(f"listen:\n  port: {word}\n") == [("listen.port", 2)]


@pytest.mark.parametrize("word", [".inf", ".nan", "1e999", "-1", "0", "0.0", "86401", "abc", "true"])
def test_a_duration_is_a_finite_number_above_zero(word: str) -> None:
    assert refused(f"upstream:\n  connect_timeout_s: {word}\n") == [("upstream.connect_timeout_s", 2)]


@pytest.mark.parametrize(("word", "seconds"), [("0.25", 0.25), (".5", 0.5), ("2", 2), ("1e1", 10)])
def test_a_duration_may_have_a_fraction(word: str, seconds: float) -> None:
    assert loaded(f"upstream: {{connect_timeout_s: {word}}}").upstream.connect_timeout_s == seconds


@pytest.mark.parametrize("word", ["on", "no", "60:30", "1_000", "2024-01-01", "=", "0600"])
def test_what_yaml_1_1_would_have_retyped_stays_text(word: str) -> None:
    assert loaded(f"catalogue: {{account: {word}}}").catalogue.account == word


def test_a_number_where_text_belongs_asks_for_quotes() -> None:
    assert refused("catalogue: {account: 17}") == [("catalogue.account", 1)]
    assert loaded("catalogue: {account: '17'}").catalogue.account == "17"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("log: &a {access: true}\n", 1),
        ("workers: 1\nlog: *a\n", 2),
        ("access:\n  tools:\n    read: [*]\n", 3),
        ("log:\n  <<: *a\n", 2),
        ("workers: !!int '1'\n", 1),
        ("log: !!python/object/apply:os.system [id]\n", 1),
        ("workers: 1\n---\nworkers: 1\n", 2),
        ("log:\n\taccess: true\n", 2),
        ("log: [\n", 2),
        ("workers: 1\nlog: 'x\n", 3),
        ("workers: 1\nlog: \x07\n", 2),
        ("workers: 1\nlog: \ud800\n", 2),
        ('workers: 1\nlog: "\\Uffffffff"\n', 2),
        ("log: " + "[" * 5000, 1),
        ("- " * 5000, 1),
        ("%YAML 9.9\n---\nworkers: 1\n", 1),
        ("workers 1\nlog: {}\n", 2),
    ],
)
def test_what_is_not_one_plain_yaml_document_is_one_problem_with_its_line(text: str, line: int) -> None:
    (problem,) = problems(text)
    assert problem.key == ""
    assert problem.line is not None
    assert abs(problem.line - line) <= 1


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("workers: 1\nworkers: 1\n", [("workers", 2)]),
        ("log:\n  level: info\n  access: true\n  level: info\n", [("log.level", 4)]),
        ("? [a]\n: 1\n", [("", 1)]),
        ("1: x\n", [("1", 1)]),
        ("<<: {workers: 1}\n", [("<<", 1)]),
        ("[]\n", [("", 1)]),
        ("workers\n", [("", 1)]),
        ("log: info\n", [("log", 1)]),
        ("routes: {path: /mcp}\n", [("routes", 1)]),
        ("routes:\n", [("routes", 1)]),
        ("log: {level: [info]}\n", [("log.level", 1)]),
        ("public_url: |\n  http://a.example\n", [("public_url", 1)]),
        ('catalogue: {account: "a\\0b"}\n', [("catalogue.account", 1)]),
        ('access: {tools: {read: ["a\\ud800"]}}\n', [("access.tools.read[0]", 1)]),
    ],
)
def test_a_wrong_shape_is_told_by_key_and_line(text: str, places: list[tuple[str, int]]) -> None:
    found = refused(text)
    assert [line for _, line in found] == [line for _, line in places]
    assert [key.strip('"') for key, _ in found] == [key for key, _ in places]


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("listn: {port: 1}", "listn", "listen"),
        ("listen:\n  prot: 1", "listen.prot", "port"),
        ("jwt: {issuers: [{issuer: 'https://a.example', audience: [x]}]}", "jwt.issuers[0].audience", "audiences"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(text: str, key: str, hint: str) -> None:
    (problem,) = problems(text)
    assert problem.key == key
    assert f"did you mean {hint}?" in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "limits: {failed_auth: {per: address}}",
    ],
)
def test_a_key_that_does_not_work_yet_is_unknown(text: str) -> None:
    (problem,) = problems(text)
    assert "is not a known key" in problem.message


def test_every_problem_is_told_at_once_by_line() -> None:
    text = """
        listen: {port: 70000, host: "a b"}
        limits:
          policies:
            - {name: one, requests: 0, window_s: 1m}
            - {name: two, requests: 1, window_s: 1, per: address, bucket: 3}
            - {name: three}
        admin: {prot: 1}
        workers: many
    """
    assert refused(text) == [
        ("listen.host", 2),
        ("listen.port", 2),
        ("limits.policies[0].requests", 5),
        ("limits.policies[0].window_s", 5),
        ("limits.policies[1].bucket", 6),
        ("limits.policies[1].per", 6),
        ("limits.policies[2].requests", 7),
        ("limits.policies[2].window_s", 7),
        ("admin.prot", 8),
        ("workers", 9),
    ]


def test_a_problem_reads_as_key_allowed_and_found() -> None:
    text = "limits:\n  policies:\n  - {name: a, requests: 1, window_s: 1}\n  - {name: b, requests: 1, window_s: 1m}\n"
    message = 'must be a whole number of seconds from 1 to 2592000, not "1m"'
    assert problems(text) == (Problem("limits.policies[1].window_s", 4, message),)
    assert str(problems(text)[0]) == f"line 4: limits.policies[1].window_s: {message}"


def test_a_typo_does_not_hide_what_is_wrong_between_sections() -> None:
    text = "workres: 1\nworkers: 2\nlimits: {policies: [{name: a, requests: 1, window_s: 1, routes: [/nope]}]}"
    assert refused(text) == [("workres", 1), ("workers", 2), ("limits.policies[0].routes[0]", 3)]


_KEYS = st.sampled_from(
    [
        *("listen", "port", "host", "routes", "path", "credentials", "jwt", "issuers", "issuer", "secret_file"),
        *(
            "jwks_file",
            "limits",
            "policies",
            "name",
            "store",
            "url",
            "identity",
            "keys",
            "id",
            "${X}",
            "",
            "public_url",
        ),
    ]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["${X}", "/a", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


def _loads_or_says_why(text: str) -> None:
    with contextlib.suppress(ConfigError):
        config = load(text, {"X": "1"}, read_file)
        assert isinstance(listing(config), dict)
        assert repr(UNREADABLE) not in repr(config)


@given(st.text() | st.text(alphabet="{}[]:-,&*!|>'\"%@`#?\\U\t\n ab01~<=", max_size=60))
@hypothesis_settings(max_examples=200, deadline=None)
def test_any_text_gives_a_config_or_its_problems(text: str) -> None:
    _loads_or_says_why(text)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5))
@hypothesis_settings(max_examples=200, deadline=None)
def test_any_yaml_gives_a_config_or_its_problems(data: dict[str, object]) -> None:
    _loads_or_says_why(yaml.safe_dump(data, allow_unicode=True))
