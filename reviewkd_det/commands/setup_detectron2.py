"""Find Detectron2, or install a pure-Python copy of it; print which one is used.

The official package is used where it is installed. It is not on the package index, so otherwise the
Detectron2 that Kitware ships inside the wheel `geowatch` is installed without that wheel's own
dependencies, and one `.pth` file makes `import detectron2` find it. A second run changes nothing.
"""

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

from reviewkd_det.common import entry_point

# The version that the tests run with.
PACKAGE = "geowatch==0.20.0"
SNAPSHOT = Path("geowatch_tpl", "submodules_static", "detectron2")


def install_snapshot() -> None:
    """Install the snapshot into the running interpreter's site-packages."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, PACKAGE], check=True)
    site_packages = Path(sysconfig.get_path("purelib"))
    (site_packages / "detectron2_snapshot.pth").write_text(f"{site_packages / SNAPSHOT}\n")


def describe() -> str:
    """One line that says which Detectron2 a new interpreter imports."""
    code = "import detectron2; print(detectron2.__version__, detectron2.__path__[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(f"Detectron2 must be importable where it is installed; got: {reason}")
    version, path = done.stdout.split(maxsplit=1)
    kind = "pure-Python snapshot" if "geowatch_tpl" in path else "official package"
    return f"Detectron2 {version} ({kind}): {path.strip()}"


@entry_point
def main() -> None:
    """Install the snapshot if no Detectron2 is found, then say which is used."""
    if importlib.util.find_spec("detectron2") is None:
        install_snapshot()
    print(describe())
