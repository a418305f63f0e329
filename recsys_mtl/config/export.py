"""How a trained network is put into its bundle."""

from typing import Annotated, Literal

from pydantic import Field

from recsys_mtl.config._base import Spec

__all__ = ["ExportSpec"]


class ExportSpec(Spec):
    """What serving loads. Nothing of it changes the training."""

    tables: Literal["float32", "float16", "int8"] = Field(
        "float32",
        description="numbers of embedding tables; int8: with a scale and an offset a "
        "row, 20 bytes in place of 64 at dim 16",
    )
    max_auc_loss: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0005,
        description="AUC on validation rows that a binary task may lose by rounded "
        "tables and products; more, and no bundle is written",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="products in serving; bf16: on processors that have them "
        "(AVX512-BF16, AMX), by PyTorch, and as fp32 on all others",
    )
    engine: Literal["auto", "eager", "onnx"] = Field(
        "auto",
        description="what runs everything behind the bottom: PyTorch (eager) or ONNX "
        "Runtime; auto: onnx where it gains, which tiny networks do not",
    )
