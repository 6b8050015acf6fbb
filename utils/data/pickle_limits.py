"""What a pickle would build, counted before anything of it is built."""

import pickletools
from typing import BinaryIO

MOST_OPCODES = 5 * 10**6  # a long training that logs every step writes 2 million
DEEPEST = 200
MOST_WORK = 5 * 10**8
LONGEST_INTEGER = 1024  # bits

_REMEMBER = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_RECALL = {"GET", "BINGET", "LONG_BINGET"}
_CHANGE = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}  # the object below what they take
_FRESH = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"}


def check_limits(file: BinaryIO) -> None:
    """Walk through the next pickle of a file, and leave the file at its beginning.

    Every object on the pickle's stack is stood for by its depth and its weight: how many objects it holds when those
    that are shared are counted each time. A tuple of twice itself, 60 times over, is small in memory, but hashing it
    walks through 2^60 objects; a million tuples in each other end in the stack of C.

    Raises:
        ValueError: no whole pickle, or more than the limits above: objects, depth, work (the weights handled by all
            opcodes together), the length of an integer, a place in the memo or a frame beyond the file's end.
    """
    start = file.tell()
    size = file.seek(0, 2)
    file.seek(start)
    atom = [0, 1]
    stack: list[list[int]] = []
    marks: list[int] = []
    memo: dict[int, list[int]] = {}
    work = 0
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(file)):
            name = opcode.name
            if count > MOST_OPCODES:
                raise ValueError(f"a pickle of more than {MOST_OPCODES} objects")
            if isinstance(argument, int):
                if argument.bit_length() > LONGEST_INTEGER:
                    raise ValueError("an integer of thousands of digits")
                if name == "FRAME" and position + argument > size:
                    raise ValueError("a frame beyond the end of the file")
            if name in _REMEMBER:
                place = len(memo) if argument is None else argument
                if place > count:
                    raise ValueError("a place in the memo that no pickle of this length has")
                memo[place] = stack[-1]
                continue
            if name in _RECALL:
                stack.append(memo[argument])
                continue
            if name == "MARK":
                marks.append(len(stack))
                continue
            if name == "DUP":
                stack.append(stack[-1])
                continue
            if name == "POP":
                if marks and marks[-1] == len(stack):
                    marks.pop()
                else:
                    stack.pop()
                continue
            if pickletools.markobject in opcode.stack_before:
                bottom = marks.pop()
            else:
                taken = len(opcode.stack_before) - (name in _CHANGE)
                if taken > len(stack) - (marks[-1] if marks else 0):
                    raise ValueError("a pickle that takes more than it has put down")
                bottom = len(stack) - taken
            children = stack[bottom:]
            del stack[bottom:]
            weight = sum(child[1] for child in children)
            depth = max((child[0] for child in children), default=-1) + 1
            work += weight
            if depth > DEEPEST:
                raise ValueError(f"objects in objects, more than {DEEPEST} deep")
            if work > MOST_WORK:
                raise ValueError("objects that share objects that share objects, without end")
            if name in _CHANGE:
                changed = stack[-1]
                if changed is atom:
                    raise ValueError("a pickle that puts something into a number or a text")
                changed[0], changed[1] = max(changed[0], depth), changed[1] + weight
            elif opcode.stack_after:
                stack.append([depth, 1 + weight] if opcode.stack_before or name in _FRESH else atom)
    except (IndexError, KeyError):
        raise ValueError("a pickle that takes what it has not put down") from None
    file.seek(start)
