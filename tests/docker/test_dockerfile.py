"""docker/Dockerfile: from hashed locks, without root, without a shell in front, with nothing but what it needs."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.support.image import BASE, DOCKERFILE, ROOT
from worker.config import Settings

TEXT = DOCKERFILE.read_text(encoding="utf-8")
STEPS = [
    re.sub(r"\s*\\\n\s*", " ", step.strip())
    for step in re.split(r"\n(?=[A-Z]+ )", "\n" + re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE))
    if step.strip()
]
STAGES = "\n".join(STEPS).split("\nFROM ")[1:]
LAST = STAGES[-1].splitlines()


def words(instruction: str, steps: list[str]) -> list[str]:
    """What stands behind each of these instructions."""
    return [step.removeprefix(instruction).strip() for step in steps if step.startswith(f"{instruction} ")]


def test_hadolint_has_nothing_to_say() -> None:
    """Warnings count as well."""
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_there_are_two_stages_on_one_pinned_base() -> None:
    """Building and running agree about Python and the C library."""
    assert len(STAGES) == 2
    assert words("ARG", STEPS)[0] == f"PYTHON_IMAGE={BASE}"
    assert [stage.split()[0] for stage in STAGES] == ["${PYTHON_IMAGE}"] * 2


def test_every_package_comes_from_a_lock_with_hashes() -> None:
    """Whatever pip gets from an index is pinned; what it builds itself comes from the source beside it."""
    installs = [
        line for line in re.split(r"&&", " && ".join(words("RUN", STEPS))) if " install " in line and "pip" in line
    ]
    from_index = [line for line in installs if "--no-index" not in line]

    assert len(installs) == 3
    assert all("--require-hashes" in line and "--only-binary :all:" in line for line in from_index)
    assert [line.split("--requirement ")[1].strip() for line in from_index] == [
        "requirements-build.lock",
        "requirements.lock",
    ]
    assert all("--no-deps" in line for line in installs if line not in from_index)


def test_locks_have_a_hash_for_each_package_and_no_address() -> None:
    """pip would refuse the former, nobody the latter."""
    for name in ("requirements.lock", "requirements-build.lock"):
        text = (ROOT / name).read_text()
        packages = re.split(r"\n(?=\S+==)", text)
        assert len(packages) > 5
        assert all("--hash=sha256:" in package for package in packages)
        assert "://" not in text


def test_the_build_lock_has_the_build_system() -> None:
    """It is installed without isolation, so it has to be there."""
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    names = {re.split(r"[<>=]", requirement)[0] for requirement in required}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements-build.lock").read_text(), re.MULTILINE))

    assert names <= locked


def test_the_user_is_a_number_and_not_root() -> None:
    """An orchestrator that forbids root can see it, and no /etc/passwd is asked."""
    assert words("USER", LAST) == ["65532:65532"]


def test_entry_point_and_health_check_are_exec_form() -> None:
    """A shell in front would keep signals to itself."""
    assert json.loads(words("ENTRYPOINT", LAST)[0]) == ["order-worker"]
    assert json.loads(words("CMD", LAST)[0]) == ["run"]
    assert json.loads(words("HEALTHCHECK", LAST)[0].split("CMD ")[1])[0] == "python"
    assert words("STOPSIGNAL", LAST) == ["SIGTERM"]


def test_the_default_version_is_the_projects() -> None:
    """Whoever builds without arguments gets the right label."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"VERSION={project['version']}" in words("ARG", LAST)


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    """.dockerignore excludes everything but the sources of COPY."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [word for step in words("COPY", STEPS) if "--from" not in step for word in step.split()[:-1]]
    copied = {word for word in sources if not word.startswith("--")}

    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_the_readme_runs_it_as_the_image_allows() -> None:
    """Its `docker run` is read-only, gives the drain its time, and mounts the folder that is written to."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^docker run (.*)$", text, re.MULTILINE)
    options = dict(re.findall(r"--([a-z-]+)(?: (?!--)(\S+))?", line))
    grace_s = Settings.model_fields["drain_grace_s"].default

    assert "read-only" in options
    assert options["volume"].endswith(f":{words('WORKDIR', LAST)[0]}")
    assert int(options["stop-timeout"]) > grace_s + 10
    assert line.endswith(" order-update-worker:local")
