# SPDX-License-Identifier: BSD-2-Clause
"""A stack machine for the pickles that ``torch.save`` writes. It can do nothing else.

It makes plain values, containers, and descriptions of tensors. It never recurses, and what it makes is in
proportion to the bytes that it reads: lengths are compared with what is left before anything is made, memo
indices are keys of a dict, and containers and tensors are counted.
"""

import collections
import struct
from typing import Any, Callable, Dict, List, NoReturn

from dragon_optim._torch_file import opcodes as op
from dragon_optim._torch_file.errors import CheckpointError, shown
from dragon_optim._torch_file.limits import Budget
from dragon_optim._torch_file.names import call, resolve
from dragon_optim._torch_file.nesting import KEY_TYPES, Keys
from dragon_optim._torch_file.stored import StoredTensor

_NAME_LENGTH = 256


class PickleReader:
    """One run through one pickle. `find_storage` gives what a persistent id describes."""

    def __init__(self, data: bytes, find_storage: Callable[[Any], Any], budget: Budget) -> None:
        self._data = data
        self._budget = budget
        self._position = 0
        self._find_storage = find_storage
        self._stack: List[Any] = []
        self._below: List[List[Any]] = []  # the stacks below the marks
        self._memo: Dict[int, Any] = {}
        self._keys: Dict[int, Keys] = {}  # by the identity of the dict, which the memo or the stack holds
        self._dicts: List[Any] = []
        self._encoded = 0  # lengths of the bytes objects made from strings
        self._counted = 0  # lengths of the Counters made from dicts

    def read(self) -> Any:
        """Return the object that the pickle builds."""
        try:
            return self._run()
        except CheckpointError as error:
            raise CheckpointError(f"{error} (data.pkl, byte {self._position})") from None

    def _run(self) -> Any:
        if self._take(1) != op.PROTO or not 2 <= self._number(1) <= 5:
            self._fail("the pickle is not of protocol 2, 3, 4 or 5.")
        while True:
            opcode = self._take(1)
            if opcode == op.STOP:
                break
            do = _DO.get(opcode)
            if do is None:
                self._fail(
                    f"the pickle uses the opcode {op.REFUSED.get(opcode, shown(opcode))}, which is refused."
                )
            do(self)
        if self._position != len(self._data):
            self._fail("something follows the pickle.")
        if len(self._stack) != 1 or self._below:
            self._fail("the pickle leaves more than its one object.")
        return self._stack[0]

    # Parts

    def _fail(self, message: str) -> NoReturn:
        raise CheckpointError(message)

    def _take(self, length: int) -> bytes:
        start = self._position
        if length > len(self._data) - start:
            self._fail(f"the pickle claims {shown(length)} bytes where it has {len(self._data) - start}.")
        self._position += length
        return self._data[start : self._position]

    def _number(self, length: int) -> int:
        return int.from_bytes(self._take(length), "little")

    def _line(self) -> str:
        end = self._data.find(b"\n", self._position, self._position + _NAME_LENGTH)
        if end < 0:
            self._fail("the pickle has a name without an end.")
        line = self._text(end - self._position)
        self._position += 1
        return line

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return self._fail("the pickle has a string that is not UTF-8.")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self, count: int) -> List[Any]:
        if len(self._stack) < count:
            self._fail("the pickle takes from an empty stack.")
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _pop_to_mark(self) -> List[Any]:
        if not self._below:
            self._fail("the pickle goes back to a mark that is not there.")
        values, self._stack = self._stack, self._below.pop()
        return values

    def _top(self, *kinds: type) -> Any:
        if not self._stack or type(self._stack[-1]) not in kinds:
            self._fail(f"the pickle adds to something that is no {kinds[0].__name__}.")
        return self._stack[-1]

    # Plain values

    def _float(self) -> None:
        self._push(struct.unpack(">d", self._take(8))[0])

    def _signed(self, length: int) -> None:
        self._push(int.from_bytes(self._take(length), "little", signed=True))

    # Containers

    def _container(self, empty: Any) -> None:
        self._budget.container()
        self._push(empty)

    def _tuple(self, values: List[Any]) -> None:
        if values:  # there is one empty tuple only
            self._budget.container()
        self._push(tuple(values))

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _append(self) -> None:
        (value,) = self._pop(1)
        self._top(list).append(value)

    def _appends(self) -> None:
        values = self._pop_to_mark()
        self._top(list).extend(values)

    def _set_item(self) -> None:
        self._set(self._pop(2))

    def _set_items(self) -> None:
        self._set(self._pop_to_mark())

    def _set(self, items: List[Any]) -> None:
        target = self._top(dict, collections.OrderedDict)
        if len(items) % 2:
            self._fail("the pickle gives a key without a value.")
        keys = self._keys_of(target)
        for key, value in zip(items[::2], items[1::2]):
            if type(key) not in KEY_TYPES and type(key) is not bytes:
                self._fail(f"the pickle has a key of type {type(key).__name__}.")
            if key in target:
                self._fail(f"the key {shown(key)} is given twice.")
            problem = keys.problem(key)
            if problem:
                self._fail(f"the key {shown(key)} {problem}.")
            target[key] = value

    def _keys_of(self, target: Any) -> Keys:
        keys = self._keys.get(id(target))
        if keys is None:
            keys = self._keys[id(target)] = Keys()
            self._dicts.append(target)
        return keys

    # The memo

    def _put(self, index: int) -> None:
        if not self._stack:
            self._fail("the pickle takes from an empty stack.")
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            self._fail(f"the pickle recalls {index}, which it has not kept.")
        self._push(self._memo[index])

    # Names and what is made by them

    def _global(self) -> None:
        module = self._line()
        self._push(resolve(module, self._line()))

    def _stack_global(self) -> None:
        module, name = self._pop(2)
        if type(module) is not str or type(name) is not str:
            self._fail("the pickle gives a name that is no string.")
        self._push(resolve(module, name))

    def _reduce(self) -> None:
        name, arguments = self._pop(2)
        value = call(name, arguments)
        if type(value) is bytes:
            self._encoded += len(value)
            if self._encoded > len(self._data):  # one string, recalled and encoded a million times
                self._fail("the pickle makes more bytes than it has.")
        elif type(value) is collections.Counter:
            self._budget.container()
            self._counted += len(value)
            if self._counted > len(self._data):  # one dict, recalled and counted a million times
                self._fail("the pickle makes more entries of Counters than it has bytes.")
        elif type(value) is StoredTensor:
            self._budget.tensor()
        elif type(value) is collections.OrderedDict:
            self._budget.container()
        self._push(value)

    def _build(self) -> None:
        (state,) = self._pop(1)
        target = self._top(collections.OrderedDict)
        metadata = state.get("_metadata") if type(state) is dict and len(state) == 1 else None
        if not isinstance(metadata, dict):
            self._fail("the pickle gives an OrderedDict other attributes than a dict _metadata.")
        target._metadata = metadata

    def _persistent(self) -> None:
        (description,) = self._pop(1)
        self._push(self._find_storage(description))

    def _frame(self) -> None:
        length = self._number(8)
        if length > len(self._data) - self._position:
            self._fail(f"the pickle claims {length} bytes where it has {len(self._data) - self._position}.")


_DO: Dict[bytes, Callable[[PickleReader], None]] = {
    op.NONE: lambda machine: machine._push(None),
    op.TRUE: lambda machine: machine._push(True),
    op.FALSE: lambda machine: machine._push(False),
    op.BININT: lambda machine: machine._signed(4),
    op.BININT1: lambda machine: machine._push(machine._number(1)),
    op.BININT2: lambda machine: machine._push(machine._number(2)),
    op.LONG1: lambda machine: machine._signed(machine._number(1)),
    op.BINFLOAT: PickleReader._float,
    op.SHORT_BINUNICODE: lambda machine: machine._push(machine._text(machine._number(1))),
    op.BINUNICODE: lambda machine: machine._push(machine._text(machine._number(4))),
    op.BINUNICODE8: lambda machine: machine._push(machine._text(machine._number(8))),
    op.SHORT_BINBYTES: lambda machine: machine._push(machine._take(machine._number(1))),
    op.BINBYTES: lambda machine: machine._push(machine._take(machine._number(4))),
    op.BINBYTES8: lambda machine: machine._push(machine._take(machine._number(8))),
    op.EMPTY_TUPLE: lambda machine: machine._push(()),
    op.TUPLE1: lambda machine: machine._tuple(machine._pop(1)),
    op.TUPLE2: lambda machine: machine._tuple(machine._pop(2)),
    op.TUPLE3: lambda machine: machine._tuple(machine._pop(3)),
    op.TUPLE: lambda machine: machine._tuple(machine._pop_to_mark()),
    op.EMPTY_LIST: lambda machine: machine._container([]),
    op.APPEND: PickleReader._append,
    op.APPENDS: PickleReader._appends,
    op.EMPTY_DICT: lambda machine: machine._container({}),
    op.SETITEM: PickleReader._set_item,
    op.SETITEMS: PickleReader._set_items,
    op.MARK: PickleReader._mark,
    op.BINPUT: lambda machine: machine._put(machine._number(1)),
    op.LONG_BINPUT: lambda machine: machine._put(machine._number(4)),
    op.MEMOIZE: lambda machine: machine._put(len(machine._memo)),
    op.BINGET: lambda machine: machine._get(machine._number(1)),
    op.LONG_BINGET: lambda machine: machine._get(machine._number(4)),
    op.GLOBAL: PickleReader._global,
    op.STACK_GLOBAL: PickleReader._stack_global,
    op.REDUCE: PickleReader._reduce,
    op.BUILD: PickleReader._build,
    op.BINPERSID: PickleReader._persistent,
    op.FRAME: PickleReader._frame,
}
