"""What is legal and probably not wanted. Said at start-up and by check-config, never an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from sidecar.config.access import ToolsConfig
from sidecar.config.sections import Config, IssuerConfig
from sidecar.config.urls import is_loopback

_EXAMPLE_HOST: Final = "idp.example"
_GRPC_PORT: Final = 4317


def warnings(config: Config) -> tuple[str, ...]:
    """Return one sentence for each setting that an operator will most likely want otherwise."""
    return (
        *_about_mode(config),
        *_about_tokens(config),
        *_about_access(config),
        *_about_limits(config),
        *_about_the_network(config),
        *_about_identity(config),
        *_about_audit(config),
        *_about_pages(config),
        *_about_tracing(config),
    )


def _about_mode(config: Config) -> Iterator[str]:
    if config.mode.scopes == "shadow":
        yield (
            "mode.scopes is shadow: whoever has a valid credential may do everything, whatever its scopes; "
            "what would be refused is logged (shadow) and counted"
        )
    if config.mode.limits == "shadow":
        yield (
            "mode.limits is shadow: nothing is limited but failed authentication; "
            "what would be refused is logged (shadow) and counted"
        )


def _about_tokens(config: Config) -> Iterator[str]:
    if not config.jwt.issuers:
        yield "jwt.issuers is empty: no token is accepted, so routes for JWTs and key management answer 401"
    for issuer in config.jwt.issuers:
        yield from _about_issuer(issuer)


def _about_issuer(issuer: IssuerConfig) -> Iterator[str]:
    if urlsplit(issuer.issuer).hostname == _EXAMPLE_HOST:
        yield f"jwt.issuers still has the example {issuer.issuer}: put your own issuer there, nobody else can sign in"
    if "mcp:full" in issuer.default_scopes:
        yield (
            f"jwt.issuers: tokens of {issuer.issuer} that name no mcp:* scope get mcp:full, which allows everything; "
            "set default_scopes to what such tokens should get"
        )
    fetched = issuer.jwks_file is None and issuer.secret is None
    if fetched and _is_exposed(issuer.jwks_url or issuer.issuer):
        yield f"jwt.issuers: keys of {issuer.issuer} are fetched over plain http: who can change them can sign in"


def _about_access(config: Config) -> Iterator[str]:
    tools = config.access.tools
    if not config.access.trust_annotations and not (tools.read or tools.write or tools.destructive):
        yield (
            "access.trust_annotations is off and access.tools is empty: every tool counts as a write, "
            "and mcp:read and mcp:tools:call can call none"
        )
    yield from _about_tools(tools)
    if "mcp:full" in config.api_keys.default_scopes:
        yield "api_keys.default_scopes has mcp:full: a key made without scopes may do everything"


def _about_tools(tools: ToolsConfig) -> Iterator[str]:
    for glob in tools.read:
        if not glob.strip("*"):
            yield f"access.tools.read has {glob}: every tool counts as read-only that no other list names"
    lists = {"destructive": tools.destructive, "write": tools.write, "read": tools.read}
    for text in dict.fromkeys((*tools.destructive, *tools.write, *tools.read)):
        naming = [name for name, texts in lists.items() if text in texts]
        if len(naming) > 1:
            yield f"access.tools: {text} stands in {' and '.join(naming)}: {naming[0]} counts, the most dangerous"


def _about_limits(config: Config) -> Iterator[str]:
    if not config.limits.policies:
        yield "limits.policies is empty: nothing is limited but failed authentication"
    if config.limits.on_store_failure == "allow":
        yield "limits.on_store_failure is allow: while the store is away there are no limits"


def _about_the_network(config: Config) -> Iterator[str]:
    yield from _about_encryption(config)
    if config.upstream.socket is None and _is_exposed(config.upstream.url):
        yield "upstream.url is plain http to another machine: requests and answers can be read and changed on the way"
    if "*" in config.allowed_hosts:
        yield "allowed_hosts has *: any name leads here, so DNS rebinding lets foreign pages reach the sidecar"
    if "null" in config.allowed_origins:
        yield "allowed_origins has null: local files and sandboxed frames of every site may ask here"
    for network in config.trusted_proxies:
        if network.prefixlen == 0:
            yield f"trusted_proxies has {network}: every client can say which address it comes from"


def _about_encryption(config: Config) -> Iterator[str]:
    is_reached_by_others, has_tls = not is_loopback(config.listen.host), config.listen.tls.cert is not None
    is_plain = config.public_url.startswith("http://")
    if has_tls and is_plain:
        yield (
            "listen.tls is set and public_url is plain http: clients are sent to an address where nothing answers, and "
            "tokens have to be for it; set public_url to the https address that clients type"
        )
    elif is_reached_by_others and is_plain:
        yield (
            f"listen.host is {config.listen.host} and public_url is plain http: credentials can be read on the way; "
            "set listen.tls or put TLS in front, and set public_url to its https address"
        )
    if is_reached_by_others and not has_tls and not config.trusted_proxies and config.require_https != "never":
        yield (
            "listen.tls is not set and trusted_proxies is empty: credentials from other machines are refused (403 "
            "HTTPS_REQUIRED); set one of them, or require_https: never where the network encrypts by itself"
        )
    if config.require_https == "never" and is_reached_by_others and not has_tls:
        yield "require_https is never: credentials that come by plain HTTP, where others can read them, are taken"


def _about_identity(config: Config) -> Iterator[str]:
    if not config.identity.keys:
        yield (
            "identity.keys is empty: a signing key is made and kept beside the store; "
            "set one to keep it when the store is lost"
        )


def _about_audit(config: Config) -> Iterator[str]:
    if config.audit.file is not None and config.audit.arguments == "full" and not config.audit.redact:
        yield (
            "audit.arguments is full and audit.redact is empty: whatever callers pass to tools is written down; "
            "name what must not be"
        )


def _about_pages(config: Config) -> Iterator[str]:
    client, managers = config.key_page.client_id, config.api_keys.management.client_ids
    if client is None:
        return
    if _is_exposed(config.public_url):
        yield "key_page.client_id is set and public_url is plain http: browsers sign nobody in without https"
    if managers and client not in managers:
        yield (
            f"api_keys.management.client_ids does not name {client}, the client of key_page: "
            "who signs in on the key page may not manage keys there"
        )


def _about_tracing(config: Config) -> Iterator[str]:
    endpoint = config.tracing.otlp_endpoint
    if endpoint is not None and urlsplit(endpoint).port == _GRPC_PORT:
        yield f"tracing.otlp_endpoint has port {_GRPC_PORT}, where collectors speak gRPC; OTLP over HTTP is at 4318"


def _is_exposed(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
