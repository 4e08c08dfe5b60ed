"""All fuzz targets."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.fuzz.bodies import BODIES
from tests.fuzz.events import EVENTS
from tests.fuzz.keys import KEYS
from tests.fuzz.lists import LISTS
from tests.fuzz.target import Target
from tests.fuzz.tokens import TOKENS

TARGETS: Final[dict[str, Target]] = {target.name: target for target in (BODIES, KEYS, TOKENS, EVENTS, LISTS)}
CORPUS: Final = Path(__file__).parent / "corpus"
"""Seeds, in a directory for each target."""
FINDS: Final = Path(__file__).parent / "finds"
"""What broke a target once; kept until it does no more, and better moved to the corpus then."""


def inputs(name: str) -> list[Path]:
    """Return the files of a target, seeds first."""
    return [path for root in (CORPUS, FINDS) for path in sorted((root / name).glob("*")) if path.is_file()]
