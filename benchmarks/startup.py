"""How long the import and the help take: the best and the median of ten fresh processes."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import wsicurate": ["-c", "import wsicurate"],
    "wsicurate --help": ["-m", "wsicurate", "--help"],
    "wsicurate tile --help": ["-m", "wsicurate", "tile", "--help"],
    "import zarr (beside us)": ["-c", "import zarr"],
}


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for name, arguments in COMMANDS.items():
        times = []
        for _ in range(10):
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        print(f"{name:26s} best {min(times):.2f} s, median {statistics.median(times):.2f} s")


if __name__ == "__main__":
    main()
