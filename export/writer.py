"""An ONNX graph, operator by operator, with its weights in one data file beside it.

Owns: names of values, the data file, how graph and data refer to each other.
Does not know: models, or what the operators mean.
Units: bytes. Weights are written as they come, so that a graph of any size is made in little memory.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

ALIGN = 4096  # a memory page: what the runtime maps begins on one
MS = "com.microsoft"
Branch = Callable[[], Sequence[str]]  # writes operators; the names of their results
_TYPES = {torch.float32: TensorProto.FLOAT, torch.uint8: TensorProto.UINT8}


def stored(tensor: Tensor) -> torch.dtype:
    """What it is written as: bytes as they are, numbers in float32."""
    return torch.float32 if tensor.is_floating_point() else tensor.dtype


class DataFile:
    """The weights of one or more graphs, one after the other; hashed while they are written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self._shared: list[tuple[Tensor, int]] = []  # and their offsets; held, so that no other gets their addresses

    def add(self, tensor: Tensor) -> tuple[int, int]:
        """Writes it, widened where it is in 16 bits; offset and length."""
        self._write(bytes(-self.size % ALIGN))
        offset = self.size
        kind = stored(tensor)
        for part in torch.split(tensor.detach(), max(1, len(tensor) // 16)):  # no second copy of a whole vocabulary
            self._write(part.to(kind).contiguous().cpu().view(-1).view(torch.uint8).numpy().data)
        return offset, self.size - offset

    def share(self, tensor: Tensor) -> tuple[int, int]:
        """The same for what several may want: memory that is there already, whole or as a part, is not written again.

        It is kept until `forget`.
        """
        address = tensor.data_ptr()
        length = tensor.numel() * tensor.element_size()
        wide = stored(tensor).itemsize // tensor.element_size()
        for held, offset in self._shared if tensor.is_contiguous() else ():
            start = held.data_ptr()
            end = start + held.numel() * held.element_size()
            if held.dtype == tensor.dtype and start <= address and address + length <= end:
                return offset + (address - start) * wide, length * wide
        offset, length = self.add(tensor)
        if tensor.is_contiguous():
            self._shared.append((tensor, offset))
        return offset, length

    def forget(self) -> None:
        """Lets go of what is shared."""
        self._shared = []

    def close(self) -> str:
        """Ends the file; the sha256 of it all."""
        self._file.close()
        self.forget()
        return self._digest.hexdigest()

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)


class Graph:
    """A graph that grows; values are known by their names."""

    def __init__(self, data: DataFile) -> None:
        self._data = data
        self._nodes: list[Any] = []
        self._numbers = itertools.count()
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._weights: list[Any] = []
        self._made: dict[Any, str] = {}

    def input(self, name: str, shape: Sequence[int | str], kind: Any = np.float32) -> str:
        """A value that is given for each run; a dimension with a name may have any size."""
        self._inputs.append(_value(name, shape, kind))
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str], kind: Any = np.float32) -> str:
        """Makes a value one of the results; it is called `name` from here on."""
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [name if held == value else held for held in names]
        self._outputs.append(_value(name, shape, kind))
        return name

    def weight(self, name: str, tensor: Tensor, *, shared: bool = False) -> str:
        """A constant in the data file; `shared`: see `DataFile.share`."""
        offset, length = self._data.share(tensor) if shared else self._data.add(tensor)
        proto = TensorProto(name=name, data_type=_TYPES[stored(tensor)], dims=tensor.shape)
        proto.data_location = TensorProto.EXTERNAL
        for key, entry in (("location", self._data.path.name), ("offset", str(offset)), ("length", str(length))):
            proto.external_data.add(key=key, value=entry)
        self._weights.append(proto)
        return name

    def constant(self, value: Any, kind: Any = np.int64) -> str:
        """A small constant inside the graph."""
        array = np.asarray(value, kind)
        key = (array.tobytes(), array.shape, array.dtype.str)
        if key not in self._made:
            self._made[key] = f"constant.{len(self._made)}"
            self._weights.append(onnx.numpy_helper.from_array(array, self._made[key]))
        return self._made[key]

    def op(self, operator: str, *inputs: str, domain: str = "", name: str = "", **attributes: Any) -> str:
        """One operator with one result; its name."""
        out = name or f"{operator.lower()}.{next(self._numbers)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [out], domain=domain, **attributes))
        return out

    def ops(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """One operator with several results, whose names are given."""
        self._nodes.append(helper.make_node(operator, list(inputs), list(outputs), **attributes))

    def either(self, condition: str, outputs: Sequence[str], then: Branch, otherwise: Branch) -> None:
        """Results, float32, of `then` where the condition holds and else of
        `otherwise`; only one of them is computed.
        """
        branches = []
        outer = self._nodes
        for write in (then, otherwise):
            self._nodes = []
            results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in write()]
            branches.append(helper.make_graph(self._nodes, "branch", [], results))
        self._nodes = outer
        then_branch, else_branch = branches
        self.ops("If", [condition], outputs, then_branch=then_branch, else_branch=else_branch)

    def save(self, path: Path, opset: int) -> None:
        """Writes the graph; the weights are in the data file already."""
        graph = helper.make_graph(self._nodes, path.stem, self._inputs, self._outputs, self._weights)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="templora", ir_version=10)
        path.write_bytes(model.SerializeToString())


def _value(name: str, shape: Sequence[int | str], kind: Any) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), list(shape))
