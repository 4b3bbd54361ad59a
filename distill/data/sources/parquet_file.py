"""What pyarrow is asked, and what is checked of a parquet file before it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.data.sources.folder import MAX_FILE_BYTES
from distill.errors import UserError
from distill.extras import how_to_install

MAX_RATIO = 200
"""Images are compressed already; a column that shrank to less than this part of it is a bomb."""


def bomb(group: Any, image: str) -> str:
    """Why a row group may not be read: its images would fill the memory."""
    for at in range(group.num_columns):
        part = group.column(at)
        if part.path_in_schema.split(".")[0] != image:
            continue
        large, small = part.total_uncompressed_size, part.total_compressed_size
        if large > MAX_FILE_BYTES and large > MAX_RATIO * small:
            return f"{small} bytes that would become {large} (decompression bomb)"
    return ""


def fault_of_type(kind: Any) -> str:
    """What a column that is no image holds; nothing if it can be one."""
    types = arrow_library().types
    bytes_of = (types.is_binary, types.is_large_binary, types.is_binary_view)
    text = (types.is_string, types.is_large_string, types.is_string_view)
    values = kind.value_type if types.is_dictionary(kind) else kind
    if any(test(values) for test in (*bytes_of, *text, types.is_fixed_size_binary)):
        return ""
    if types.is_struct(kind) and {"bytes", "path"} & {kind.field(i).name for i in range(len(kind))}:
        return ""
    return str(kind)


def class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> list[str] | None:
    """Names of people by number, where the file's Hugging Face metadata has them."""
    try:
        about: Any = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"][column]["names"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else None


def row_count(path: Path) -> int:
    """Rows of a file; 0 where it cannot be opened."""
    try:
        with opened_parquet(path) as file:
            return int(file.metadata.num_rows)
    except (arrow_library().ArrowException, OSError):
        return 0


def opened_parquet(path: Path) -> Any:
    """A parquet file, read in small pieces, its checksums verified where it has any."""
    from pyarrow.parquet import ParquetFile

    return ParquetFile(
        path,
        buffer_size=1 << 20,
        pre_buffer=False,
        page_checksum_verification=True,
        thrift_string_size_limit=1 << 26,
        thrift_container_size_limit=1 << 22,
    )


def arrow_library() -> Any:
    """The library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.types
    except ImportError:
        raise UserError(
            "parquet files are read by pyarrow, which is not installed",
            fix=how_to_install("parquet"),
        ) from None
    return pyarrow


def said(fault: BaseException) -> str:
    """A library's complaint, short enough for a table."""
    return (str(fault) or type(fault).__name__).splitlines()[0][:200]
