"""`python -m bench`: nano's speed on this machine, then the noisy-judge simulation of the method."""

import subprocess
import sys

for module in ("bench.speed", "bench.simulate"):
    print(f"\n## {module}\n", flush=True)
    subprocess.run([sys.executable, "-m", module], check=True)
