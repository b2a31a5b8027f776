"""A double of tf2onnx, which needs TensorFlow: takes its arguments, and "converts" by copying model.onnx out of assets.

Everything that it was called with is appended to converter.json beside the output's SavedModel, for the test to read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--saved-model", type=Path, required=True)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--opset", type=int, required=True)
parser.add_argument("--signature_def", required=True)
options = parser.parse_args()
record = options.saved_model.parent / "converter.json"
calls = json.loads(record.read_text(encoding="utf-8")) if record.exists() else []
record.write_text(json.dumps([*calls, sys.argv[1:]]), encoding="utf-8")
source = options.saved_model / "assets" / "model.onnx"
if not source.exists():
    sys.exit("no operation named StatefulPartitionedCall")
if source.stat().st_size:
    shutil.copyfile(source, options.output)
