"""`python -m bench`: nano's speed here, the comparison with other methods, then the noisy-judge simulation.

Arguments go to the comparison (`bench.compare`); without `--data` or `--published` it uses the labelled zips at
`../shared/data` where they are, else the sample collection.
"""

import subprocess
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

arguments = sys.argv[1:]
if DATA.is_dir() and not {"--data", "--published", "--layouts"} & set(arguments):
    arguments = ["--data", str(DATA), *arguments]
for module, given in (("bench.speed", []), ("bench.compare", arguments), ("bench.simulate", [])):
    print(f"\n## {module}\n", flush=True)
    subprocess.run([sys.executable, "-m", module, *given], check=True)
