"""Carries out `deploy/Dockerfile` where there is no container engine: each stage is a directory.

What the stages stand on can't be fetched here; both are Debian, and so is what stands in for them:

- the first stage's `debian:SUITE-slim` is that suite as debootstrap makes it, with the same Python;
- the last one's base is built by its makers from unpacked packages of the same suite. Here it is the same packages, but
  for those that no part of the sidecar loads: Python, what it links to, and no shell.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.deploy.dockerfile import Instruction, Stage, let_through, stages

TOP = Path(__file__).parents[2]
SUITE = re.compile(r"debian:(\w+)-slim")
RUN_PACKAGES = (
    "base-files ca-certificates libc6 libgcc-s1 libstdc++6 libssl3t64 libzstd1 libbz2-1.0 libexpat1 liblzma5 "
    "libsqlite3-0 libuuid1 libncursesw6 libtinfo6 zlib1g libcrypt1 libreadline8t64 libffi8 "
    "libpython3.13-minimal libpython3.13-stdlib python3.13-minimal"
)
"""Of the packages of the distroless Python image (its python3, cc and base), with what OpenSSL 3.5 links to."""
PIP_CACHE = Path("/var/tmp/sidecar-image-pip")  # noqa: S108 - kept between runs on purpose, and hashes decide


@dataclass(frozen=True)
class Image:
    """A file system and how to start what is in it."""

    root: Path
    environment: Mapping[str, str]
    user: str
    working_directory: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health_check: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


def build(directory: Path) -> Image:
    """Build the image in this directory, as root."""
    first, last = stages((TOP / "deploy/Dockerfile").read_text("utf-8"))
    build_root, run_root = directory / first.name, directory / "run"
    suite = SUITE.fullmatch(first.base)
    assert suite is not None
    _run("debootstrap", "--variant=minbase", suite[1], str(build_root))
    _carry_out(first, build_root)
    _unpack(build_root, run_root)
    for copy in last.all("COPY"):
        assert copy.flags["from"] == first.name
        _copy(copy, build_root, run_root)
    return Image(
        run_root,
        last.pairs("ENV"),
        last.only("USER").value,
        last.only("WORKDIR").value,
        tuple(last.only("ENTRYPOINT").words),
        tuple(last.only("CMD").words),
        tuple(_exec_form(last.only("HEALTHCHECK"))),
        tuple(last.only("VOLUME").words),
    )


def with_extra(image: Image, directory: Path, name: str) -> Image:
    """Build the image in this directory again, with an extra: what the first stage has before that is kept."""
    first, last = stages((TOP / "deploy/Dockerfile").read_text("utf-8"))
    build_root, run_root = directory / first.name, directory / f"run-{name}"
    assert "EXTRA" in first.pairs("ARG")
    made = ("/opt/sidecar", "/etc/sidecar", "/var/lib/sidecar")
    at = _at(build_root, {**first.pairs("ARG"), "EXTRA": name})
    _run(*at, "rm", "-rf", *made)
    _run(*at, "sh", "-c", first.all("RUN")[-1].value)
    _run("cp", "-a", str(image.root), str(run_root))
    _run("rm", "-rf", *[f"{run_root}{path}" for path in made])
    for copy in last.all("COPY"):
        _copy(copy, build_root, run_root)
    return replace(image, root=run_root)


def _carry_out(stage: Stage, root: Path) -> None:
    arguments = stage.pairs("ARG")
    for instruction in stage.instructions:
        if instruction.name == "RUN":
            _run(*_at(root, arguments), "sh", "-c", instruction.value)
        elif instruction.name == "COPY":
            _copy(instruction, TOP, root)
        else:
            assert instruction.name == "ARG"


def _at(root: Path, arguments: Mapping[str, str]) -> list[str]:
    """Run a command as root at this root, with the network and the package index of this machine."""
    PIP_CACHE.mkdir(exist_ok=True)
    command = ["bwrap", "--bind", str(root), "/", "--dev", "/dev", "--proc", "/proc"]
    command += ["--ro-bind", "/etc/resolv.conf", "/etc/resolv.conf", "--bind", str(PIP_CACHE), "/root/.cache/pip"]
    command += ["--ro-bind-try", "/etc/pip.conf", "/etc/pip.conf", "--cap-add", "ALL", "--clearenv"]
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_") and "CACHE" not in name}
    if bundle := settings.get("PIP_CERT"):
        settings["PIP_CERT"] = "/run/pip-certificates"
        command += ["--ro-bind", bundle, settings["PIP_CERT"]]
    for name, value in {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **settings, **arguments}.items():
        command += ["--setenv", name, value]
    return command


def _copy(instruction: Instruction, source_root: Path, target_root: Path) -> None:
    *sources, target = instruction.words
    into = target_root / target.lstrip("/")
    for name in sources:
        source = source_root / name.strip("/")
        if source.is_dir():
            skipped = _skipped if source_root == TOP else None
            shutil.copytree(source, into, symlinks=True, dirs_exist_ok=True, ignore=skipped)
        else:
            assert let_through(IGNORED, name)
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, into)
    if owner := instruction.flags.get("chown"):
        for path in (into, *into.rglob("*")):
            os.chown(path, *map(int, owner.split(":")), follow_symlinks=False)


IGNORED = (TOP / ".dockerignore").read_text("utf-8")


def _skipped(directory: str, names: list[str]) -> list[str]:
    below = Path(directory).relative_to(TOP)
    return [name for name in names if not let_through(IGNORED, str(below / name))]


def _unpack(build_root: Path, run_root: Path) -> None:
    """Lay out the packages of the last stage's base."""
    listed = _run("chroot", str(build_root), "dpkg", "-L", *RUN_PACKAGES.split()).splitlines()
    files = {line.lstrip("/") for line in listed if line.startswith("/") and line != "/."}
    run_root.mkdir()
    archive = run_root.with_suffix(".tar")
    names = run_root.with_suffix(".names")
    names.write_text("\n".join(sorted(name for name in files if os.path.lexists(build_root / name))))
    _run("tar", "-C", str(build_root), "-cf", str(archive), "--no-recursion", "-T", str(names))
    _run("tar", "-C", str(run_root), "-xf", str(archive))
    for name in ("python", "python3"):  # the base's own aliases
        (run_root / "usr/bin" / name).unlink(missing_ok=True)
        (run_root / "usr/bin" / name).symlink_to("python3.13")


def _exec_form(health_check: Instruction) -> list[str]:
    words = Instruction("CMD", {}, health_check.value.removeprefix("CMD ")).words
    assert health_check.value.startswith("CMD [")
    return words


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
