"""A fixed corpus of damaged images and bundles; `fuzzing` runs as many as one likes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json, sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
import fuzzing
kinds = set(fuzzing.fuzz_images(600)) | set(fuzzing.fuzz_bundles(120, Path(sys.argv[2])))
assert fuzzing.peak_memory() < fuzzing.MOST_MEMORY, fuzzing.peak_memory()
print(json.dumps(sorted(kinds)))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory of a process from /proc")
def test_damaged_files_are_answered_or_refused(tmp_path):
    """In a process of its own, so that its memory can be read; a crash of a decoder would end that process."""
    here = str(Path(__file__).parent)
    result = subprocess.run([sys.executable, "-c", CODE, here, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert {"image", "answers", "refused", "not_an_image", "truncated_image"} <= set(json.loads(result.stdout.splitlines()[-1]))
