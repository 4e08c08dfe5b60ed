"""Reads a Dockerfile: its stages, and the instructions of each."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

_REFERENCE = re.compile(r"\$\{(\w+)\}")
_FLAG = re.compile(r"--(\w[\w-]*)=(\S+)\s+")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its flags, and the rest of the line."""

    name: str
    flags: Mapping[str, str]
    value: str

    @property
    def words(self) -> list[str]:
        """The exec form, or plain words."""
        return list(json.loads(self.value)) if self.value.startswith("[") else shlex.split(self.value)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage: what it stands on, and what is done there."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]

    def only(self, name: str) -> Instruction:
        (instruction,) = self.all(name)
        return instruction

    def pairs(self, name: str) -> dict[str, str]:
        """Return the ``NAME=value`` of every such instruction; a name without one is empty."""
        words = [word for instruction in self.all(name) for word in instruction.words]
        return {key: value for key, _, value in (word.partition("=") for word in words)}


def stages(text: str) -> list[Stage]:
    """Read all stages; arguments before the first are filled into what the stages stand on."""
    defaults: dict[str, str] = {}
    found: list[tuple[str, str, list[Instruction]]] = []
    for instruction in _instructions(text):
        if instruction.name == "FROM":
            base, _, name = instruction.value.partition(" AS ")
            found.append((filled(base, defaults), name, []))
        elif found:
            found[-1][2].append(instruction)
        else:
            assert instruction.name == "ARG"
            key, _, value = instruction.value.partition("=")
            defaults[key] = value
    return [Stage(base, name, tuple(instructions)) for base, name, instructions in found]


def filled(text: str, values: Mapping[str, str]) -> str:
    """Fill in each ``${NAME}``."""
    return _REFERENCE.sub(lambda reference: values[reference[1]], text)


def let_through(ignore_file: str, path: str) -> bool:
    """Tell whether a ``.dockerignore`` lets this file reach the builder: the last line that matches decides."""
    lines = [line for line in ignore_file.splitlines() if line and not line.startswith("#")]
    kept = True
    for line in lines:
        pattern = line.removeprefix("!").removesuffix("/")
        below = [path, *map(str, Path(path).parents)]
        if any(fnmatch(one, pattern) or fnmatch(f"/{one}", pattern.replace("**/", "*/")) for one in below):
            kept = line.startswith("!")
    return kept


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        flags = {}
        while flag := _FLAG.match(rest):
            flags[flag[1]] = flag[2]
            rest = rest[flag.end() :]
        yield Instruction(name, flags, rest)
