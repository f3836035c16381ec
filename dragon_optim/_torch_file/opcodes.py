# SPDX-License-Identifier: BSD-2-Clause
"""The opcodes of pickle protocols 2 to 5 that ``torch.save`` produces; `pickletools` tells what they mean."""

PROTO, STOP, FRAME = b"\x80", b".", b"\x95"
MARK = b"("
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"
BININT, BININT1, BININT2, LONG1, BINFLOAT = b"J", b"K", b"M", b"\x8a", b"G"
SHORT_BINUNICODE, BINUNICODE, BINUNICODE8 = b"\x8c", b"X", b"\x8d"
SHORT_BINBYTES, BINBYTES, BINBYTES8 = b"C", b"B", b"\x8e"
EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE = b")", b"\x85", b"\x86", b"\x87", b"t"
EMPTY_LIST, APPEND, APPENDS = b"]", b"a", b"e"
EMPTY_DICT, SETITEM, SETITEMS = b"}", b"s", b"u"
BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET = b"q", b"r", b"\x94", b"h", b"j"
GLOBAL, STACK_GLOBAL, REDUCE, BUILD, BINPERSID = b"c", b"\x93", b"R", b"b", b"Q"

# Known by name only, for an error that says what was found.
REFUSED = {
    b"0": "POP",
    b"1": "POP_MARK",
    b"2": "DUP",
    b"F": "FLOAT",
    b"I": "INT",
    b"L": "LONG",
    b"P": "PERSID",
    b"S": "STRING",
    b"T": "BINSTRING",
    b"U": "SHORT_BINSTRING",
    b"V": "UNICODE",
    b"d": "DICT",
    b"g": "GET",
    b"i": "INST",
    b"l": "LIST",
    b"o": "OBJ",
    b"p": "PUT",
    b"\x81": "NEWOBJ",
    b"\x82": "EXT1",
    b"\x83": "EXT2",
    b"\x84": "EXT4",
    b"\x8b": "LONG4",
    b"\x8f": "EMPTY_SET",
    b"\x90": "ADDITEMS",
    b"\x91": "FROZENSET",
    b"\x92": "NEWOBJ_EX",
    b"\x96": "BYTEARRAY8",
    b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER",
}
