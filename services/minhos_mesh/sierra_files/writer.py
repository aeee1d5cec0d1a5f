"""Decides how a .scid file grows: header first, then whole records appended in one write, as Sierra Chart does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from minhos_mesh.sierra_files.header import ScidError, ScidMalformed, parse_header, write_header
from minhos_mesh.sierra_files.layout import HEADER_SIZE, RECORD, Records, offset_of, records_in


class ScidWriter:
    """Appends records to one .scid file; nothing but this object may write to it."""

    def __init__(self, path: Path, descriptor: int, count: int) -> None:
        """Wraps an open descriptor that stands behind `count` whole records; use create() or resume()."""
        self.path = path
        self._descriptor = descriptor
        self.count = count
        """Whole records in the file."""

    @classmethod
    def create(cls, path: Path, records: Records | None = None) -> ScidWriter:
        """Makes a new file with its header and first records and puts it in place in one step.

        A reader sees the old file or the whole new one, which has its own inode. Raises ScidError.
        """
        fresh = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ScidError(f"{path} cannot be created: {error.strerror}") from error
        writer = cls(path, descriptor, 0)
        try:
            _write_all(descriptor, write_header())
            if records is not None:
                writer.append(records)
            fresh.replace(path)
        except BaseException:
            os.close(descriptor)
            raise
        return writer

    @classmethod
    def resume(cls, path: Path) -> ScidWriter:
        """Opens an existing file to append; a half record at its end, left by a killed writer, is cut off.

        Raises ScidError when the file is missing or is no .scid file.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise ScidError(f"{path} cannot be appended to: {error.strerror}") from error
        try:
            header = parse_header(os.pread(descriptor, HEADER_SIZE, 0), str(path))
            if header.size != HEADER_SIZE:
                raise ScidMalformed(
                    f"{path} has a header of {header.size} bytes: appended to are those of {HEADER_SIZE}"
                )
            count = records_in(os.fstat(descriptor).st_size)
            os.ftruncate(descriptor, offset_of(count))
            os.lseek(descriptor, 0, os.SEEK_END)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, count)

    def append(self, records: Records) -> None:
        """Writes records behind the last one, all or none. Raises ScidError when the disk refuses."""
        if records.dtype != RECORD:
            raise ValueError(f"records have layout {records.dtype}: expected {RECORD}")
        try:
            _write_all(self._descriptor, np.ascontiguousarray(records).tobytes())
        except OSError as error:
            os.ftruncate(self._descriptor, offset_of(self.count))
            os.lseek(self._descriptor, 0, os.SEEK_END)
            raise ScidError(f"{self.path} cannot be written: {error.strerror}") from error
        self.count += len(records)

    def truncate(self, count: int) -> None:
        """Leaves the first `count` records and takes the others away. Raises ScidError when the disk refuses."""
        if not 0 <= count <= self.count:
            raise ValueError(f"{self.path} has {self.count} records: {count} cannot be left")
        try:
            os.ftruncate(self._descriptor, offset_of(count))
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError as error:
            raise ScidError(f"{self.path} cannot be truncated: {error.strerror}") from error
        self.count = count

    def rewrite_last(self, record: Records) -> None:
        """Replaces the last record in place, as Sierra Chart does with a bar that is not over yet."""
        if self.count == 0:
            raise ValueError(f"{self.path} has no record to rewrite")
        os.pwrite(self._descriptor, np.ascontiguousarray(record[:1]).tobytes(), offset_of(self.count - 1))

    def close(self) -> None:
        """Gives the descriptor back; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
