import errno

import pytest

from bench import errors
from bench.cli import explain


class OutOfMemoryError(RuntimeError):
    """Stands for torch.OutOfMemoryError, which is known by its name alone."""


CODES = [
    (errors.UsageError("x"), 2),
    (errors.SuiteError("x"), 2),
    (errors.WeightsError("x"), 3),
    (errors.IncomparableError("x"), 4),
    (errors.InvalidError("x"), 5),
    (errors.MachineError("x"), 6),
    (errors.InUse("the folder is in use"), 6),
    (errors.OutOfMemory("x"), 6),
    (errors.Interrupted("x"), 130),
    (errors.HotartError("x"), 70),
    (KeyboardInterrupt(), 130),
    (OSError(errno.ENOSPC, "No space left on device", "a.png"), 6),
    (OSError(errno.EROFS, "Read-only file system"), 6),
    (PermissionError(errno.EACCES, "Permission denied", "run.json"), 6),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), 6),
    (FileExistsError(errno.EEXIST, "File exists", "plots"), 6),
    (OSError(errno.ELOOP, "Too many levels of symbolic links", "a.png"), 6),
    (SystemExit(0), 70),
    (FileNotFoundError(errno.ENOENT, "No such file", "x"), 70),
    (MemoryError(), 6),
    (OutOfMemoryError("CUDA out of memory"), 6),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 6),
    (RuntimeError("shapes do not match"), 70),
    (ValueError("x"), 70),
    (AssertionError(), 70),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_exit_code_of_each_error(error, code):
    exit_code, message, _ = explain(error)
    assert exit_code == code
    assert message


def test_every_error_class_has_its_code_from_the_contract():
    classes = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    assert classes == {type(error) for error, _ in CODES if isinstance(error, errors.HotartError)}


def test_a_full_disk_names_the_file():
    assert "images/a.png" in explain(OSError(errno.ENOSPC, "No space left on device", "images/a.png"))[1]


def test_our_errors_keep_their_sentence_and_hint():
    explained = explain(errors.WeightsError("No such file: unet.", "hotart-bench doctor"))
    assert explained == (3, "No such file: unet.", "hotart-bench doctor")
