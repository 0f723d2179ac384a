"""`depth-train` from a bare checkout, nothing installed.

python training/train.py run bundled -o FOLDER
torchrun --nproc_per_node 2 training/train.py run bundled -o FOLDER
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(folder) for folder in (ROOT, ROOT / "apps", ROOT / "training")]

if __name__ == "__main__":
    from depth_train.cli import main

    main()
