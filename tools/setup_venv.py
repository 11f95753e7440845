"""Makes .venv hold exactly what constraints.txt pins, and does nothing when it already does.

Runs under any Python 3, so that one too old gets a sentence and not a syntax error.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import venv

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "authz-setup-stamp")
PYTHON = os.path.join(VENV, "bin", "python")
CONSTRAINTS = os.path.join(ROOT, "constraints.txt")
LOCK = os.path.join(ROOT, "requirements.lock")
EXTRAS = ("server", "embedded", "grpc", "otel", "dev", "docs")
TOOLS = ("pip", "hatchling", "editables")
OLDEST = (3, 11)


def _wanted():
    """Everything that decides what the environment must hold: a moved tree and another Python count too."""
    import tomllib  # by now this Python is known to have it

    digest = hashlib.sha256()
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        settings = tomllib.load(file)
    # A linter's settings are no reason to install anything anew.
    parts = [settings["build-system"], settings["project"], settings["tool"]["hatch"]]
    digest.update(json.dumps(parts, sort_keys=True).encode())
    for path in (CONSTRAINTS, LOCK, os.path.abspath(__file__)):
        if os.path.exists(path):
            with open(path, "rb") as file:
                digest.update(file.read())
    digest.update(VENV.encode())
    digest.update(sys.version.encode())
    return digest.hexdigest()


def digest_of_pins():
    """Of all that a lock is made from: another one means that the lock is of other pins."""
    import tomllib

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    parts = [project["dependencies"], [extras[name] for name in EXTRAS], TOOLS]
    with open(CONSTRAINTS, "rb") as file:
        pins = [line for line in file.read().splitlines() if line.strip() and not line.startswith(b"#")]
    return hashlib.sha256(json.dumps(parts).encode() + b"\n".join(pins)).hexdigest()


def _is_locked():
    try:
        with open(LOCK) as file:
            head = file.read(1000)
    except OSError:
        return False
    return "# pins: %s\n" % digest_of_pins() in head


def _found():
    try:
        with open(STAMP) as file:
            return file.read().strip()
    except OSError:
        return None


def _same_python():
    """Whether .venv was made by this Python for this place; pip cannot repair one that was not."""
    ask = [PYTHON, "-c", "import sys; print(sys.version, sys.prefix)"]
    try:
        answer = subprocess.run(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == "%s %s" % (sys.version, VENV)


def _pip(*arguments, **options):
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    # A constraints file of the machine's own would argue with ours.
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    command = command + ([] if options.get("hashed") else ["-c", CONSTRAINTS]) + list(arguments)
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)


def main():
    """Exit status 0 when .venv is as wanted; a pip that fails has already said why."""
    if sys.version_info < OLDEST:
        found = (sys.executable,) + tuple(sys.version_info[:2])
        print("authz-service needs Python 3.11 or newer, `%s` is %d.%d: say `make PYTHON=python3.11 setup`" % found)
        return 1
    with open(os.path.join(ROOT, "pyproject.toml")) as lock:
        # Two `make` at once would install into one folder; the second waits, then finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = _wanted()
        if _found() == wanted and os.path.exists(PYTHON):
            return 0
        print("setting up .venv (%s)" % sys.executable, flush=True)
        if os.path.exists(STAMP):
            os.unlink(STAMP)
        if not _same_python():
            venv.create(VENV, clear=True, with_pip=True)
        try:
            if _is_locked():
                # Each file by its hash; what follows finds nothing left to fetch.
                _pip("--require-hashes", "--no-deps", "-r", LOCK, hashed=True)
            else:
                print(
                    "requirements.lock is of other pins: nothing is checked by its hash; `make lock` renews it",
                    flush=True,
                )
            # pip and the build backend first, pinned: then nothing is fetched into an unpinned build environment.
            _pip(*TOOLS)
            _pip("--no-build-isolation", "-e", ".[%s]" % ",".join(EXTRAS))
        except subprocess.CalledProcessError as error:
            return error.returncode
        with open(STAMP, "w") as stamp:
            stamp.write(wanted + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
