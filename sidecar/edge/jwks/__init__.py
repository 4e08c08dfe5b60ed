"""The issuers' key sets: `ports.VerificationKeys` over HTTP and files."""

from sidecar.edge.jwks.keys import KeySets, KeySource

__all__ = ["KeySets", "KeySource"]
