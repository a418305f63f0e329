"""torch-rechub's MMoE, eager and as its own ONNX export, in its own environment.

Run by ``forward.py``; prints one JSON line. Imports nothing of this library.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from forward_clock import interleaved
from rechub_mmoe import rechub_mmoe
from torch_rechub.utils.onnx_export import ONNXExporter


def main() -> None:
    """Time both."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = [*(f"c{f}" for f in range(26)), *(f"n{m}" for m in range(13))]
    model = rechub_mmoe(names).eval()
    session, lacking = None, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            ONNXExporter(model).export(str(path), verbose=False)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(path, options)
        except Exception as error:  # noqa: BLE001  # an exporter raises anything
            lacking["torch-rechub onnx"] = repr(error)[:200]
    figures = {}
    for rows in (512, 1):
        x = {f"c{f}": torch.randint(0, 100_000, (rows,)) for f in range(26)}
        x |= {f"n{m}": torch.randn(rows) for m in range(13)}
        calls = {"torch-rechub eager": lambda x=x: model(x)}
        if session is not None:
            # It wants numbers as columns.
            given = {
                node.name: np.asarray(x[node.name]).reshape(
                    -1, *[1] * (len(node.shape) - 1)
                )
                for node in session.get_inputs()
            }
            calls["torch-rechub onnx"] = lambda given=given: session.run(None, given)
        with torch.inference_mode():
            figures[rows] = interleaved(calls, rounds=40 if rows > 1 else 200)
    print(json.dumps(figures | {"lacking": lacking}))


if __name__ == "__main__":
    main()
