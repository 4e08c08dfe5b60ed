"""Commands of the documentation that change or move what is secret do what is said there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from sidecar.config import load
from sidecar.edge.identity_file import load_or_make

OPERATING = (Path(__file__).parent.parent / "deploy" / "operating.md").read_text("utf-8")
SETTINGS = """\
identity:
  algorithm: {algorithm}
  keys:
    - {{id: {id}, {kind}: {file}}}
"""


def test_the_identity_key_that_was_made_becomes_one_that_is_named(tmp_path: Path) -> None:
    (commands,) = re.findall(r"^```sh\n(\{ printf .*?)^```$", OPERATING, re.MULTILINE | re.DOTALL)
    (data := tmp_path / "data").mkdir()
    made = load_or_make(data, "ed25519"), load_or_make(data, "hmac-sha256")
    subprocess.run(["sh", "-eu", "-c", commands], cwd=tmp_path, check=True, capture_output=True)

    files = ("private_key_file", "identity-old.pem"), ("secret_file", "identity-old.secret")
    for key, (kind, file) in zip(made, files, strict=True):
        text = SETTINGS.format(algorithm=key.algorithm, id=key.id, kind=kind, file=file)
        config = load(text, {}, lambda path: (tmp_path / path).read_bytes())
        assert config.identity.keys == (key,)
