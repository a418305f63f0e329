"""Weights mapped from a safetensors file, all of them pieces of one mapping."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from recsys_mtl.errors import ArtifactError

__all__ = ["map_weights"]

_DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def map_weights(path: Path) -> dict[str, Tensor]:
    """Map all tensors of a file, in the order in which they lie there.

    Unlike those of ``safetensors.torch.load_file`` they have one storage, so that
    neighbours can be seen as one matrix. Processes share pages until they write.

    Raises:
        ArtifactError: The file cannot be read, or holds other types than weights have.
    """
    try:
        with safe_open(path, framework="np"):  # checks header, sizes and offsets
            pass
        whole = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}; build the bundle again"
        ) from error
    start = 8 + int.from_bytes(whole[:8].numpy().tobytes(), "little")
    header = json.loads(whole[8:start].numpy().tobytes())
    header.pop("__metadata__", None)
    state = {}
    for name, entry in sorted(header.items(), key=lambda e: e[1]["data_offsets"]):
        if entry["dtype"] not in _DTYPES:
            raise ArtifactError(
                f"{name!r} of {path} must be of one of the types "
                f"{', '.join(_DTYPES)}, got {entry['dtype']}; build the bundle again"
            )
        dtype = _DTYPES[entry["dtype"]]
        first, end = entry["data_offsets"]
        if first == end:
            state[name] = torch.empty(entry["shape"], dtype=dtype)
            continue
        piece = whole[start + first : start + end].view(dtype)
        state[name] = piece.view(entry["shape"])
    return state
