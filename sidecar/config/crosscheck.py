"""What has to hold between sections, beyond what each of them says of itself.

A rule is silent of what it can't judge because something that it reads is unreadable.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

from sidecar.config.reader import Complaint, CrossRule, readable
from sidecar.config.sections import Config
from sidecar.config.urls import addresses
from sidecar.config.values import MANAGEMENT_PATH

_OF_TRACING: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.common")
"""What the extra ``otel`` brings."""
_ANY_HOST: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def _listeners_differ(config: Config) -> Iterator[Complaint]:
    hosts = {config.listen.host, config.admin.host}
    if not readable(*hosts, config.listen.port, config.admin.port):
        return
    if config.listen.port == config.admin.port != 0 and (len(hosts) == 1 or hosts & _ANY_HOST):
        yield "admin.port", f"must not be the port of listen, {config.listen.port}"


def _upstream_is_another(config: Config) -> Iterator[Complaint]:
    if not readable(config.listen.host, config.listen.port, config.upstream.url, config.upstream.socket):
        return
    if config.upstream.socket is not None:
        return
    url = urlsplit(config.upstream.url)
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    if port == config.listen.port and addresses(url.hostname or "") & addresses(config.listen.host):
        yield "upstream.url", "must not be where the sidecar itself listens, or every request would go round for ever"


def _accounts_of_issuers_differ(config: Config) -> Iterator[Complaint]:
    issuers = config.jwt.issuers
    for index, one in enumerate(issuers):
        key = f"jwt.issuers[{index}].account_prefix"
        if not readable(one.account_prefix):
            continue
        if len(issuers) > 1 and not one.account_prefix:
            yield key, "must be set when there are several issuers, so that no two accounts get the same name"
            continue
        for other, two in enumerate(issuers):
            if other == index or not readable(two.account_prefix):
                continue
            if two.account_prefix.startswith(one.account_prefix):
                yield (
                    key,
                    f"must not be the start of jwt.issuers[{other}].account_prefix, or accounts could be mixed up",
                )


def _audiences_are_known(config: Config) -> Iterator[Complaint]:
    credentials = tuple(route.credentials for route in config.routes)
    if readable(config.routes, credentials) and not any("jwt" in kinds for kinds in credentials):
        for index, issuer in enumerate(config.jwt.issuers):
            if not issuer.audiences:
                yield f"jwt.issuers[{index}].audiences", "must be set when no route takes JWTs, as no URL stands for it"


def _limits_name_routes(config: Config) -> Iterator[Complaint]:
    known = {route.path for route in config.routes} | {MANAGEMENT_PATH}
    if not readable(config.routes, *known):
        return
    for index, limit in enumerate(config.limits.policies):
        for position, path in enumerate(limit.routes):
            if readable(path) and path not in known:
                yield f"limits.policies[{index}].routes[{position}]", f"must be one of {', '.join(sorted(known))}"


def _identity_keys_fit(config: Config) -> Iterator[Complaint]:
    wanted = config.identity.algorithm
    if not readable(wanted):
        return
    need = {"ed25519": "private_key_file", "hmac-sha256": "secret_file"}[wanted]
    for index, key in enumerate(config.identity.keys):
        if readable(key.algorithm) and key.algorithm != wanted:
            yield f"identity.keys[{index}]", f"must have a {need}, because identity.algorithm is {wanted}"


def _replicas_share_identity_keys(config: Config) -> Iterator[Complaint]:
    if readable(config.store.url) and config.store.sqlite_path is None and not config.identity.keys:
        make, name = "openssl genpkey -algorithm ed25519 -out identity.pem", "private_key_file: identity.pem"
        if config.identity.algorithm == "hmac-sha256":
            make, name = "openssl rand -base64 32 > identity.secret", "secret_file: identity.secret"
        yield (
            "identity.keys",
            "must name a key when the store is shared, because several replicas must sign with the same key; "
            f"make one with: {make}; then write: keys: [{{id: k1, {name}}}]",
        )


def _workers_share_a_store(config: Config) -> Iterator[Complaint]:
    if not readable(config.workers, config.store.url):
        return
    if config.workers > 1 and config.store.sqlite_path is not None:
        yield "workers", "must be 1 with the embedded store; more need a shared one, such as redis://"


def _webhooks_are_signed(config: Config) -> Iterator[Complaint]:
    webhook = config.confirmation.webhook
    if readable(webhook.url, webhook.secret) and (webhook.url is None) != (webhook.secret is None):
        missing = "secret_file" if webhook.secret is None else "url"
        yield (
            f"confirmation.webhook.{missing}",
            "must be set: url and secret_file go together, for what is told is signed",
        )


def _people_have_somewhere_to_sign_in(config: Config) -> Iterator[Complaint]:
    if readable(config.key_page.client_id) and config.key_page.client_id is not None and not config.jwt.issuers:
        yield "key_page.client_id", "must be null while jwt.issuers is empty: people sign in at the first of them"


def _tracing_is_installed(config: Config) -> Iterator[Complaint]:
    if readable(config.tracing.otlp_endpoint) and config.tracing.otlp_endpoint and not all(map(_has, _OF_TRACING)):
        yield (
            "tracing.otlp_endpoint",
            "needs packages of OpenTelemetry that are not installed: pip install '.[otel]', "
            "or build the image with --build-arg EXTRA=otel",
        )


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


CROSS_RULES: Final[tuple[CrossRule[Config], ...]] = (
    (("admin.port", "admin.host", "listen.port", "listen.host"), _listeners_differ),
    (("upstream.url", "listen.host", "listen.port"), _upstream_is_another),
    (("jwt.issuers",), _accounts_of_issuers_differ),
    (("jwt.issuers", "routes"), _audiences_are_known),
    (("limits.policies", "routes"), _limits_name_routes),
    (("identity.keys", "identity.algorithm"), _identity_keys_fit),
    (("identity.keys", "store.url", "identity.algorithm"), _replicas_share_identity_keys),
    (("workers", "store.url"), _workers_share_a_store),
    (("key_page.client_id", "jwt.issuers"), _people_have_somewhere_to_sign_in),
    (("confirmation.webhook",), _webhooks_are_signed),
    (("tracing.otlp_endpoint",), _tracing_is_installed),
)
