"""Whom do callers claim to be? Tokens, API keys and the secrets behind them, made anew for every run."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sidecar.demo.issuer import SigningKey
from sidecar.edge.hashing import BcryptHasher
from sidecar.policy import apikeys
from sidecar.records import ApiKey, KeyRecord

ISSUER: Final = "https://issuer.bench.example"
AUDIENCE: Final = "https://sidecar.bench.example/mcp"
ACCOUNT: Final = "bench"
BCRYPT_COST: Final = 10
_LIFETIME_S: Final = 86_400


@dataclass(frozen=True)
class IssuedKey:
    """An API key with the record that the store keeps of it."""

    record: KeyRecord
    text: str


class Credentials:
    """The issuer, the identity keys, and whatever is made with them. Its files are for the contenders to read."""

    def __init__(self, directory: Path) -> None:
        self._signing_key = SigningKey("RS256")
        self.identity_secret = os.urandom(48)
        self._identity_ed25519 = Ed25519PrivateKey.generate()
        self.jwks = json.dumps({"keys": [self._signing_key.jwk()]})
        self.jwks_file = directory / "jwks.json"
        self.jwks_file.write_text(self.jwks)
        self.public_key_file = directory / "issuer.pem"
        public_key = jwt.PyJWK(self._signing_key.jwk()).key
        self.public_key_file.write_bytes(public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        self.identity_secret_file = directory / "identity.secret"
        self.identity_secret_file.write_bytes(base64.b64encode(self.identity_secret))
        self.identity_pem_file = directory / "identity.pem"
        self.identity_pem_file.write_bytes(
            self._identity_ed25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        self._shared_secret = apikeys.mint(os.urandom(apikeys.ENTROPY_BYTES)).secret
        self._secret_hash = asyncio.run(_hashed(self._shared_secret))

    def identity_jwk(self) -> dict[str, str]:
        """Return the public half of the Ed25519 identity key, as the sidecar would publish it."""
        x = base64.urlsafe_b64encode(self._identity_ed25519.public_key().public_bytes_raw()).rstrip(b"=")
        return {"kty": "OKP", "crv": "Ed25519", "x": x.decode(), "alg": "EdDSA", "use": "sig"}

    def token(self, account: str = ACCOUNT) -> str:
        """Sign a token with claims as an issuer would send them."""
        now = int(time.time())
        return self._signing_key.sign(
            {
                "iss": ISSUER,
                "aud": AUDIENCE,
                "sub": account,
                "iat": now,
                "exp": now + _LIFETIME_S,
                "jti": os.urandom(12).hex(),
                "client_id": "bench",
                "scope": "mcp:full",
            }
        )

    def api_keys(self, count: int, *, accounts: int = 1) -> Iterator[IssuedKey]:
        """Make keys, dealt out to so many accounts.

        They differ in their ids and share one secret, so that bcrypt has to make only one hash. To the sidecar that
        makes no difference: what it has verified it remembers for each key by itself.
        """
        now = time.time()
        for number in range(count):
            key = self._key(os.urandom(apikeys.ENTROPY_BYTES))
            account = ACCOUNT if accounts == 1 else f"{ACCOUNT}-{number % accounts}"
            yield IssuedKey(self._record(key, account, now), key.text)

    def _key(self, entropy: bytes) -> ApiKey:
        unsigned = f"mcp_{apikeys.mint(entropy).id.removeprefix('key_')}{self._shared_secret}"
        return apikeys.parse(unsigned + apikeys.checksum(unsigned))

    def _record(self, key: ApiKey, account: str, now: float) -> KeyRecord:
        return KeyRecord(
            id=key.id,
            account=account,
            name="bench",
            prefix=apikeys.prefix(key),
            scopes=("mcp:full",),
            secret_hash=self._secret_hash,
            created_at=now,
            created_by="cli",
            origin="cli",
            lifetime_s=_LIFETIME_S,
            expires_at=now + _LIFETIME_S,
        )


async def _hashed(secret: str) -> str:
    hasher = BcryptHasher(BCRYPT_COST, threads=1)
    try:
        return await hasher.hash(secret)
    finally:
        await hasher.aclose()
