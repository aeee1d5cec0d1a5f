"""Decides how .venv comes to hold exactly what requirements.lock says, with nothing but the standard library."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

STAMP = ".minhos-stamp"


class InstallError(Exception):
    """Expected: a step failed for a reason that the message gives."""


def run(step: str, command: list[str], root: Path, advice: str = "") -> None:
    """Runs one step with one line that says what it does and how long it took."""
    print(f"  {step} ...", end=" ", flush=True)
    started = time.monotonic()
    environment = {
        key: value for key, value in os.environ.items() if key not in {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"}
    }
    done = subprocess.run(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        print("failed", flush=True)
        tail = "\n".join(done.stdout.strip().splitlines()[-25:])
        raise InstallError(
            f"{step}: {' '.join(command[:6])} ... ended with {done.returncode}\n{tail}\n{advice}".rstrip()
        )
    print(f"{time.monotonic() - started:.1f} s", flush=True)


def usable(venv: Path) -> bool:
    """Says whether the environment's interpreter starts, is new enough, has pip, and was made for this folder."""
    python = venv / "bin" / "python"
    if not python.exists():
        return False
    test = "import sys, pip; print(sys.prefix); sys.exit(sys.version_info < (3, 11))"
    done = subprocess.run([str(python), "-c", test], capture_output=True, text=True, check=False)
    if done.returncode != 0 or Path(done.stdout.strip()).resolve() != venv.resolve():
        return False
    pip = venv / "bin" / "pip"  # its first lines name the folder for which it was made
    return pip.is_file() and f"{venv}/bin/".encode() in pip.read_bytes()


def install(root: Path, stamp: str) -> None:
    """Brings .venv up to the lock; leaves a stamp only when all steps succeeded."""
    venv = root / ".venv"
    print(f"Preparing {venv.relative_to(root)} (only after a fresh clone or a change of requirements.lock)", flush=True)
    if not usable(venv):
        shutil.rmtree(venv, ignore_errors=True)
        advice = "On Debian and Ubuntu the module is a package of its own: apt install python3-venv"
        run("virtual environment", [sys.executable, "-m", "venv", str(venv)], root, advice)
    (venv / STAMP).unlink(missing_ok=True)
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-deps"]
    lock = root / "requirements.lock"
    count = len(re.findall(r"^\S+==", lock.read_text(encoding="utf-8"), re.MULTILINE))
    advice = "A package registry must be reachable; pip's own settings (proxy, mirror, certificate) are obeyed."
    run(f"{count} packages of requirements.lock", [*pip, "--require-hashes", "-r", str(lock)], root, advice)
    run("minhos itself, editable", [*pip, "--no-build-isolation", "--editable", str(root)], root)
    (venv / STAMP).write_text(stamp + "\n", encoding="utf-8")


def main() -> int:
    """Installs under a lock, so that of two runs at once the second waits and then finds everything done."""
    root, stamp = Path(sys.argv[1]), sys.argv[2]
    with (root / ".venv.lock").open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another run that is preparing .venv", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        done = root / ".venv" / STAMP
        if done.is_file() and done.read_text(encoding="utf-8").strip() == stamp.strip() and usable(root / ".venv"):
            return 0
        try:
            install(root, stamp)
        except InstallError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
