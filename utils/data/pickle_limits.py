"""Limits on the size of a pickle, checked before anything is unpickled."""

import pickletools
from typing import BinaryIO

MOST_OPCODES = 5 * 10**6  # a long training run that logs every step writes 2 million
DEEPEST = 200
MOST_WORK = 5 * 10**8
LONGEST_INTEGER = 1024  # bits

_REMEMBER = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_RECALL = {"GET", "BINGET", "LONG_BINGET"}
_CHANGE = {
    "APPEND",
    "APPENDS",
    "SETITEM",
    "SETITEMS",
    "ADDITEMS",
    "BUILD",
}  # they also change the object below their arguments
_FRESH = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"}


def check_limits(file: BinaryIO) -> None:
    """Check the next pickle of a file without building it; the file's position stays the same.

    The pickle's stack is simulated. Each object on it is represented by its depth and its weight, the number of objects
    it contains, where shared objects count each time. This guards against two attacks: a pair that contains the same
    pair twice, 60 levels deep, is small in memory, but hashing it visits 2^60 objects; a million nested tuples overflow
    the C stack.

    Raises:
        ValueError: the pickle is incomplete, or exceeds a limit: the number of opcodes, the depth, the work (sum of the
            weights that the opcodes handle), the length of an integer, a memo index, or a frame beyond the file's end.
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
                    raise ValueError("a memo index that no pickle of this length has")
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
                    raise ValueError("a pickle that takes more objects off its stack than it has put there")
                bottom = len(stack) - taken
            children = stack[bottom:]
            del stack[bottom:]
            weight = sum(child[1] for child in children)
            depth = max((child[0] for child in children), default=-1) + 1
            work += weight
            if depth > DEEPEST:
                raise ValueError(f"objects nested more than {DEEPEST} deep")
            if work > MOST_WORK:
                raise ValueError("shared objects nested so often that they are too large to handle")
            if name in _CHANGE:
                changed = stack[-1]
                if changed is atom:
                    raise ValueError("a pickle that puts something into a number or a text")
                changed[0], changed[1] = max(changed[0], depth), changed[1] + weight
            elif opcode.stack_after:
                stack.append([depth, 1 + weight] if opcode.stack_before or name in _FRESH else atom)
    except (IndexError, KeyError):
        raise ValueError("a pickle that uses objects it has not created") from None
    file.seek(start)
